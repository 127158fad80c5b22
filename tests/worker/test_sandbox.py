"""What a hostile job reaches from within the real child, in a real place, on this kernel."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import psutil
import pytest

from jobstore.settings import Settings
from sandbox import NotHeld
from worker.shelter import Shelter
from worker.workplace import Workplace

HOSTILE = str(Path(__file__).with_name("hostile.py"))
# One that users other than ours may run; that of a virtual environment may lie in a closed home.
SYSTEM_PYTHON = "/usr/bin/python3"
SECRET = "of a neighbour"


class Said:
    """What came of each attempt."""

    def __init__(self, shelter: Shelter, log: str, outcome: dict[str, str], folder: Path) -> None:
        self.held, self.log, self.outcome, self.folder = shelter.held, log, outcome, folder

    def needs(self, part: str) -> None:
        """Skip the test where this kernel cannot shut the part."""
        if part in self.held.missing:
            pytest.skip(f"this kernel does not shut {part}: {self.held}")


@contextmanager
def neighbourhood(**settings: Any) -> Iterator[tuple[Shelter, Path]]:
    """A data folder with a store, a database and a neighbour, below no folder that is closed."""
    home = Path(mkdtemp(prefix="atmc-sandbox-"))
    home.chmod(0o711)
    for name in ("objects/tenant/blob", "atmc.db", "secrets.key"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(SECRET)
    try:
        yield Shelter(Settings(home=home, device="cpu", **settings), home / "runs"), home
    finally:
        shutil.rmtree(home)


def attempt(shelter: Shelter, **attempts: Any) -> Said:
    """Have a child try these."""
    with Workplace([sys.executable, HOSTILE], shelter, together=False) as workplace:
        document = {"processes": 1, "attempts": attempts}
        workplace.folder.job.write_text(json.dumps(document))
        child = workplace.begin()
        assert child.wait(60)
        status = workplace.end()
        log = workplace.folder.log.read_text()
        assert status == 0, log
        said = json.loads(workplace.folder.outcome.read_text())
        return Said(shelter, log, said, workplace.folder.path)


@contextmanager
def listening(home: Path) -> Iterator[dict[str, Any]]:
    """Attempts to reach servers of each kind."""
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        attempts = {
            "tcp": ["connect", "AF_INET", "SOCK_STREAM", tcp.getsockname()],
            "udp": ["connect", "AF_INET", "SOCK_DGRAM", tcp.getsockname()],
            "tcp6": ["connect", "AF_INET6", "SOCK_STREAM", ["::1", tcp.getsockname()[1]]],
        }
        for name, address in (("unix", str(home / "server")), ("abstract", f"\0{home}")):
            server = stack.enter_context(socket.socket(socket.AF_UNIX))
            server.bind(address)
            server.listen()
            attempts[name] = ["connect", "AF_UNIX", "SOCK_STREAM", address]
        attempts["datagram"] = ["connect", "AF_UNIX", "SOCK_DGRAM", str(home / "server")]
        yield attempts


def files(home: Path, neighbour: Path) -> dict[str, list[Any]]:
    """Attempts on files that are others'."""
    return {
        "neighbour": ["read", str(neighbour / "inputs" / "model")],
        "neighbour's events": ["append", str(neighbour / "events.jsonl")],
        "neighbour's name": ["listing", str(home / "runs")],
        "store": ["listing", str(home / "objects")],
        "blob": ["read", str(home / "objects" / "tenant" / "blob")],
        "database": ["read", str(home / "atmc.db")],
        "key": ["read", str(home / "secrets.key")],
        "shadow": ["read", "/etc/shadow"],
        "elsewhere": ["append", "/tmp/atmc-sandbox-was-here"],
        "checkout": ["read", str(Path(__file__).parents[2] / "pyproject.toml")],
        "executed": ["in_a_program", str(neighbour / "inputs" / "model")],
    }


@pytest.fixture(scope="module", params=["as its parent's user", "as a user of its own"])
def said(request: pytest.FixtureRequest) -> Said:
    """All attempts, made by one child."""
    own = request.param == "as a user of its own"
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        if own:
            if os.geteuid() != 0 or not Path(SYSTEM_PYTHON).exists():
                pytest.skip(f"only root may choose users, and needs {SYSTEM_PYTHON}")
            patch.setattr(sys, "executable", SYSTEM_PYTHON)
            patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        else:
            patch.setattr("sandbox.kernel.capabilities", lambda: 0)
        shelter, home = stack.enter_context(neighbourhood())
        if own and "user" in shelter._missing:
            pytest.skip(f"no user of its own: {shelter.held}")
        neighbour = stack.enter_context(shelter.place())
        (neighbour.folder.inputs / "model").write_text(SECRET)
        neighbour.hand_over()
        stranger = stack.enter_context(subprocess.Popen(["sleep", "600"]))
        stack.callback(stranger.kill)
        servers = stack.enter_context(listening(home))
        said = attempt(
            shelter,
            **files(home, neighbour.folder.path),
            **servers,
            **{
                "own": ["home", None],
                "user": ["user", None],
                "stranger": ["signal", stranger.pid, signal.SIGTERM],
                "parent": ["signal", os.getpid(), 0],
                "trace": ["attach", os.getpid()],
                "memory": ["memory", os.getpid()],
                "environment": ["read", f"/proc/{os.getpid()}/environ"],
                "calls": ["denied", None],
                "odd calls": ["odd_calls", None],
                "link": ["link", str(home / "secrets.key")],
                "pipe": ["pipe", None],
            },
        )
        assert stranger.poll() is None
        assert (neighbour.folder.inputs / "model").read_text() == SECRET
        assert not Path("/tmp/atmc-sandbox-was-here").exists()
    return said


def test_the_first_line_of_the_log_says_what_holds(said: Said) -> None:
    first = said.log.splitlines()[0]
    assert first.startswith("sandbox: ")
    # The user differs from place to place, the rest was found out as the worker started.
    assert re.sub(r"user \d+", "", first) == re.sub(r"user \d+", "", str(said.held))


@pytest.mark.parametrize("name", files(Path(), Path()))
def test_no_file_of_others_is_read_listed_or_written(said: Said, name: str) -> None:
    said.needs("files")
    assert "Permission denied" in said.outcome[name]


@pytest.mark.parametrize("name", ["tcp", "udp", "tcp6", "unix", "abstract", "datagram"])
def test_no_socket_is_opened(said: Said, name: str) -> None:
    said.needs("calls")
    assert said.outcome[name] == "PermissionError: [Errno 1] Operation not permitted"


def test_nobody_is_traced_or_looked_into(said: Said) -> None:
    said.needs("calls")
    assert said.outcome["trace"] == "EPERM"
    said.needs("files")
    for name in ("memory", "environment"):
        assert "Permission denied" in said.outcome[name]


def test_strangers_get_no_signal(said: Said) -> None:
    if "signals" not in str(said.held) and "parent's user" in str(said.held):
        pytest.skip(f"this kernel's Landlock does not shut signals: {said.held}")
    for name in ("stranger", "parent"):
        assert said.outcome[name] == "PermissionError: [Errno 1] Operation not permitted"


def test_dangerous_calls_are_refused_also_by_other_names(said: Said) -> None:
    said.needs("calls")
    assert said.outcome["calls"] == "{}"
    clone3, namespace, x32 = said.outcome["odd calls"].split()
    assert (clone3, namespace) == ("ENOSYS", "EPERM")
    assert x32 == ("EPERM" if os.uname().machine == "x86_64" else "ENOSYS")


def test_nothing_is_left_that_would_mislead_its_reader(said: Said) -> None:
    """A link would have the supervisor publish what it points to; a pipe would stop it for ever."""
    said.needs("calls")
    for name in ("link", "pipe"):
        assert said.outcome[name].startswith("PermissionError: [Errno 1]")


def test_the_child_has_a_temporary_folder_of_its_own(said: Said) -> None:
    assert said.outcome["own"] == str(said.folder / "tmp")
    assert not said.folder.exists()


def test_two_children_are_two_users(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0 or not Path(SYSTEM_PYTHON).exists():
        pytest.skip(f"only root may choose users, and needs {SYSTEM_PYTHON}")
    monkeypatch.setattr(sys, "executable", SYSTEM_PYTHON)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    with neighbourhood(child_user="64000-64001") as (shelter, home):
        if "user" in shelter._missing:
            pytest.skip(f"no user of its own: {shelter.held}")
        with shelter.place() as first:
            assert attempt(shelter, user=["user", None]).outcome["user"] == "64001 64001 []"
            assert first.folder.path.stat().st_uid == 64000
            with shelter.place() as second, shelter.place() as third:
                assert not second.restrictions.shared
                assert (third.restrictions.user, third.restrictions.shared) == (64001, True)
        # Others may pass through.
        for folder in (home, home / "runs"):
            assert folder.stat().st_mode & 0o011 == 0o011


def test_a_fork_bomb_ends_at_its_limit_and_is_cleared_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if os.geteuid() != 0 or not Path(SYSTEM_PYTHON).exists():
        pytest.skip(f"as root only a user of its own is limited, and needs {SYSTEM_PYTHON}")
    monkeypatch.setattr(sys, "executable", SYSTEM_PYTHON)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setattr("worker.shelter.PROCESSES", 40)
    with neighbourhood(child_user="64002") as (shelter, _):
        if "user" in shelter._missing:
            pytest.skip(f"no user of its own: {shelter.held}")
        said = attempt(shelter, bomb=["bomb", 200]).outcome["bomb"]
        # The child itself is one of them, and its watching thread.
        assert said == "Resource temporarily unavailable after 38"
        # Each was in a session of its own, out of reach of the child's group.
        left = [each for each in psutil.process_iter(["uids", "status"]) if _is_left(each)]
        assert left == []


def _is_left(process: psutil.Process) -> bool:
    return process.info["uids"].real == 64002 and process.info["status"] != psutil.STATUS_ZOMBIE


def test_what_is_off_is_said_to_be_off() -> None:
    with neighbourhood(sandbox="off") as (shelter, home):
        said = attempt(shelter, key=["read", str(home / "secrets.key")])
    assert said.log == "sandbox: off (ATMC_SANDBOX=off)\n"
    assert said.outcome["key"] == SECRET


# Has the kernel answer as one that is built without Landlock, or without filters.
LACKING = """
import ctypes, errno, os, sys
from sandbox import kernel, seccomp
from sandbox.seccomp import Instruction as I

lines = {
    "landlock": [I(0x20, 0, 0, 0), I(0x15, 0, 1, 444), I(6, 0, 0, 0x50000 | errno.ENOSYS)],
    "seccomp": [I(0x20, 0, 0, 16), I(0x15, 0, 1, 22), I(6, 0, 0, 0x50000 | errno.EINVAL)],
}[sys.argv[1]]
seccomp.program = lambda machine, together: [*lines, I(6, 0, 0, 0x7FFF0000)]
seccomp.install(together=False)
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
SHELTER = """
import sys
from pathlib import Path
from jobstore.settings import Settings
from worker.shelter import Shelter

home = Path(sys.argv[1])
try:
    print(Shelter(Settings(home=home, sandbox=sys.argv[2]), home / "runs").held)
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


@pytest.mark.parametrize(("lacks", "part"), [("landlock", "files"), ("seccomp", "calls")])
def test_what_a_kernel_lacks_is_said_or_refused(tmp_path: Path, lacks: str, part: str) -> None:
    said = {}
    for mode in ("best", "require"):
        command = [sys.executable, "-c", LACKING, lacks, "-c", SHELTER, str(tmp_path), mode]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        said[mode] = done.stdout.strip()
    assert f"NO {lacks} (" in said["best"]
    assert said["require"].startswith(f"NotHeld: {part} ")
    assert f"NO {lacks} (" in said["require"]


def test_a_user_who_is_required_is_had_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.kernel.capabilities", lambda: 0)
    with (
        pytest.raises(NotHeld, match="ATMC_CHILD_USER cannot be used here: its parent lacks CHOWN"),
        neighbourhood(sandbox="require", child_user="64003"),
    ):
        pass
