"""A checkpoint is whole or not there, checked by its hash, and the newest two are kept."""

import hashlib
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from atmc_core.job import checkpoint
from atmc_core.job.checkpoint import FORMAT, CheckpointFolder


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    """With three saved, of which two are left."""
    folder = CheckpointFolder(tmp_path)
    for epoch in (1, 2, 3):
        folder.save({"epoch": epoch, "weights": torch.full((1000,), float(epoch))})
    return folder


def _epoch(folder: CheckpointFolder) -> tuple[int | None, list[str]]:
    state, broken = folder.load()
    return (None if state is None else state["epoch"]), broken


def test_the_newest_two_are_kept_under_the_hash_of_what_they_hold(folder: CheckpointFolder) -> None:
    assert [path.stem[:7] for path in folder.paths()] == ["000002-", "000003-"]
    for path in folder.paths():
        assert path.stem[7:] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sorted(folder.folder.iterdir()) == folder.paths()
    assert _epoch(folder) == (3, [])


def test_one_flipped_bit_is_seen_though_the_file_still_reads(folder: CheckpointFolder) -> None:
    newest = folder.paths()[-1]
    content = bytearray(newest.read_bytes())
    # Somewhere in the numbers, which the format's own checks let pass.
    content[content.index(torch.full((4,), 3.0).numpy().tobytes()) + 2] ^= 1
    newest.write_bytes(content)
    assert torch.load(newest, weights_only=True)["epoch"] == 3
    epoch, broken = _epoch(folder)
    assert epoch == 2
    assert broken == [f"{newest.name}: its content has another hash than its name"]


def test_with_both_broken_it_starts_anew_and_says_so(folder: CheckpointFolder) -> None:
    for path in folder.paths():
        path.write_bytes(path.read_bytes()[:-1])
    epoch, broken = _epoch(folder)
    assert epoch is None
    assert len(broken) == 2


def test_a_write_that_was_cut_off_is_no_checkpoint(folder: CheckpointFolder) -> None:
    (folder.folder / "000004.tmp").write_bytes(b"half of it")
    assert _epoch(folder) == (3, [])
    folder.save({"epoch": 4})
    assert _epoch(folder) == (4, [])
    assert len(list(folder.folder.iterdir())) == 2


def test_one_of_a_version_without_hashes_is_taken_as_it_is(folder: CheckpointFolder) -> None:
    newest = folder.paths()[-1]
    newest.rename(folder.folder / "000009.pt")
    assert _epoch(folder) == (3, [])
    assert folder.save({"epoch": 4}).name.startswith("000010-")


def test_another_release_s_state_is_not_taken_for_ours(folder: CheckpointFolder) -> None:
    newest = folder.paths()[-1]
    state = torch.load(newest, weights_only=True)
    del state["format"]  # as the first releases wrote it
    plain = newest.with_name("000004.pt")
    torch.save(state, plain)
    epoch, broken = _epoch(folder)
    assert epoch == 3
    assert broken == [f"{plain.name}: its format is 1, this release reads {FORMAT}"]


def test_a_dear_one_waits_until_enough_was_worked_and_a_quick_one_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0, 10, 99, 100, 100.01, 100.02, 100.03])
    monkeypatch.setattr(checkpoint, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(checkpoint, "QUICK_S", 0.25)
    folder, made = CheckpointFolder(tmp_path), list[int]()

    def state(epoch: int) -> dict[str, Any]:
        made.append(epoch)
        return {"epoch": epoch}

    # Took 10 s until 10, so 99 is too early; the others are quick.
    for epoch in (1, 2, 3, 4):
        folder.save_if_due(partial(state, epoch))
    assert made == [1, 3, 4]
    assert _epoch(folder) == (4, [])
