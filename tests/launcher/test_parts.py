"""Parts are restarted with backoff and ended in order, whatever they do about it."""

import contextlib
import os
import subprocess
import sys
import time

import psutil
import pytest

from launcher.parts import Part, Parts
from launcher.watchdog import GRACE_S


def shell(name, script, grace_s=5.0):
    return Part(name, ("/bin/sh", "-c", script), grace_s)


@pytest.fixture
def said():
    return []


@pytest.fixture
def parts(tmp_path, said):
    with (tmp_path / "lock").open("w") as lock:
        parts = Parts(os.environ, tmp_path, lock, said.append)
        parts.open()
        yield parts
        parts.end(parts.names(), hurry=lambda: True)
        parts.close()


def tend_until(parts, true, within_s=10.0):
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline
        parts.tend()
        time.sleep(0.02)


def test_a_fallen_part_is_restarted_ever_more_rarely_and_its_log_shown(parts, said):
    parts.start(shell("api", "echo no database; exit 3"))
    tend_until(parts, lambda: parts.falls("api") == 2)
    assert said[0].startswith("api ended unexpectedly (exit status 3), restarting in 1 s")
    assert said[0].endswith("    no database")
    assert said[1] == "api started again"
    assert "restarting in 2 s" in said[2]
    assert parts.tail("api") == "    no database\n    no database"


def test_a_deaf_part_is_killed_after_its_grace(parts, said, tmp_path):
    ready = tmp_path / "ready"
    script = f"trap '' TERM; touch {ready}; while true; do sleep 0.1; done"
    parts.start(shell("deaf", script, grace_s=0.3))
    tend_until(parts, ready.exists)
    began = time.monotonic()
    parts.end(["deaf"], hurry=lambda: False)
    assert 0.3 < time.monotonic() - began < 3
    assert said == ["deaf does not end and is killed"]


def test_hurry_does_not_wait_for_the_grace(parts, tmp_path):
    ready = tmp_path / "ready"
    parts.start(shell("deaf", f"trap '' TERM; touch {ready}; exec sleep 100", grace_s=60))
    tend_until(parts, ready.exists)
    began = time.monotonic()
    parts.end(["deaf"], hurry=lambda: True)
    assert time.monotonic() - began < 3


def test_the_last_run_s_log_is_kept_beside_the_present_one(parts, tmp_path):
    (tmp_path / "api.log").write_text("yesterday\n")
    parts.start(shell("api", "exec sleep 100"))
    assert (tmp_path / "api.log.1").read_text() == "yesterday\n"


def test_every_part_is_in_the_watchdog_s_group_and_holds_the_lock(parts, tmp_path):
    script = "import os; print(os.getpgrp(), sorted(os.listdir('/dev/fd')))"
    parts.start(Part("part", (sys.executable, "-c", script), 5.0))
    log = tmp_path / "part.log"
    tend_until(parts, lambda: log.read_text().endswith("\n"))
    group, descriptors = log.read_text().split(" ", 1)
    assert int(group) == parts.group
    assert str(parts.inherited.fileno()) in descriptors


def test_in_a_hurry_nothing_that_a_part_started_outlives_it(parts, tmp_path):
    """As a worker's child does, it has a session of its own and hears nothing of the end."""
    pid = tmp_path / "pid"
    child = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(100)"
    script = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True);"
        "time.sleep(100)"
    )
    parts.start(Part("worker", (sys.executable, "-c", script), 60.0))
    tend_until(parts, lambda: pid.exists() and pid.read_text())
    child = psutil.Process(int(pid.read_text()))
    parts.end(["worker"], hurry=lambda: True)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


LAUNCHER = """
import os, sys, time
from pathlib import Path
from launcher.parts import Part, Parts
folder = Path(sys.argv[1])
parts = Parts(os.environ, folder, (folder / "lock").open("w"), print)
parts.open()
for name, script in (("meek", "exec sleep 100"), ("deaf", "trap '' TERM; sleep 100; sleep 100")):
    parts.start(Part(name, ("/bin/sh", "-c", script), 5.0))
print(parts.group, flush=True)
time.sleep(100)
"""


def test_no_part_outlives_a_killed_launcher(tmp_path):
    command = [sys.executable, "-c", LAUNCHER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        group = int(launcher.stdout.readline())
        parts = living_in(group)
        # The watchdog, too.
        assert len(parts) >= 3
        launcher.kill()
    deadline = time.monotonic() + GRACE_S + 10
    while living_in(group):
        assert time.monotonic() < deadline, living_in(group)
        time.sleep(0.05)


def living_in(group):
    """The processes of the group that have not ended."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def test_a_part_has_its_own_settings_and_the_watchdog_has_none(parts, tmp_path):
    script = "import os; print(os.environ.get('ATMC_ADMIN_KEY'))"
    command = (sys.executable, "-c", script)
    parts.start(Part("api", command, 5.0, {"ATMC_ADMIN_KEY": "hush"}))
    parts.start(Part("worker-1", command, 5.0))
    for name, told in (("api", "hush"), ("worker-1", "None")):
        log = tmp_path / f"{name}.log"
        tend_until(parts, lambda log=log: log.read_text().endswith("\n"))
        assert log.read_text().startswith(told)
