"""The memory of a machine's GPUs, as it is told to the database."""

import stat
from pathlib import Path

import pytest
from sqlalchemy import update

from jobstore import metrics
from jobstore.database import Database
from jobstore.dialects import clock
from jobstore.tables import Metric
from worker.gpus import GpuMemory, GpuReport, parse, read_gpus

MIB = 1 << 20


def test_the_driver_s_table_is_read() -> None:
    table = "0, 1234, 81559\n1, 0, 81559\n2, [N/A], [N/A]\n\nNo devices were found\n"
    assert parse(table) == [
        GpuMemory("0", 1234 * MIB, 81559 * MIB),
        GpuMemory("1", 0, 81559 * MIB),
    ]


def test_a_driver_that_fails_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_gpus() == []
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexit 9\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    assert read_gpus() == []
    program.write_text("#!/bin/sh\necho '0, 7, 9'\n")
    assert read_gpus() == [GpuMemory("0", 7 * MIB, 9 * MIB)]


def test_what_is_told_is_the_newest_and_forgotten_when_nobody_tells_it(database: Database) -> None:
    report = GpuReport(database, stop=None)  # type: ignore[arg-type]
    for used in (1, 2):
        report.tell([GpuMemory("0", used, 9)])
    with database.read() as session:
        assert list(metrics.told(session, metrics.GPU_USED).values()) == [2]
    with database.write() as session:
        session.execute(update(Metric).values(told_at=clock(-metrics.TOLD_WITHIN_S)))
    with database.write() as session:
        assert metrics.told(session, metrics.GPU_USED) == {}
        metrics.forget_told(session)
    with database.read() as session:
        assert session.query(Metric).count() == 0
