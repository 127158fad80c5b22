"""The sandbox's parts, as far as they can be tested without a kernel that has them."""

import ctypes
import errno
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox import cgroups, landlock, seccomp, syscalls, users
from sandbox.entering import Restrictions
from sandbox.system import Code

MACHINES = ("x86_64", "aarch64")
ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def answer(machine: str, number: int, *arguments: int, together: bool = False, **other: int) -> int:
    """What the filter answers to a call, as the kernel would run it."""
    words = {0: number, 4: other.get("architecture", ARCHITECTURE[machine])}
    words |= {16 + 8 * at: value & 0xFFFFFFFF for at, value in enumerate((*arguments, 0, 0, 0))}
    lines = seccomp.program(machine, together=together)
    at, word = 0, 0
    while True:
        line = lines[at]
        at += 1
        match line.code:
            case 0x20:
                word = words[line.value]
            case 0x54:
                word &= line.value
            case 0x06:
                return line.value
            case code:
                holds = {
                    0x15: word == line.value,
                    0x35: word >= line.value,
                    0x45: bool(word & line.value),
                }[code]
                at += line.then if holds else line.otherwise


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("together", [False, True])
def test_the_filter_refuses_what_it_should_and_lets_the_rest_through(
    machine: str, together: bool
) -> None:
    for number in syscalls.DENIED[machine].values():
        assert answer(machine, number, together=together) == EPERM
    known = {**syscalls.DENIED[machine], **syscalls.OF_SOCKETS[machine]}
    known |= syscalls.LOOKED_AT[machine]
    for number in set(range(600)) - set(known.values()):
        assert answer(machine, number, together=together) == ALLOW
    for number in syscalls.OF_SOCKETS[machine].values():
        assert answer(machine, number, together=together) == (ALLOW if together else EPERM)


@pytest.mark.parametrize("machine", MACHINES)
def test_calls_are_refused_by_their_arguments(machine: str) -> None:
    numbers = syscalls.LOOKED_AT[machine]
    assert answer(machine, numbers["clone3"]) == ENOSYS
    # What fork and threads ask for, and each kind of namespace.
    assert answer(machine, numbers["clone"], 0x01200011) == ALLOW
    assert answer(machine, numbers["clone"], 0x003D0F00) == ALLOW
    for namespace in (0x20000, 1 << 25, 1 << 26, 1 << 27, 1 << 28, 1 << 29, 1 << 30):
        assert answer(machine, numbers["clone"], namespace | 17) == EPERM
    stream, packets = socket.SOCK_STREAM | socket.SOCK_CLOEXEC, socket.SOCK_SEQPACKET
    for call in ("socket", "socketpair"):
        number = numbers[call]
        assert answer(machine, number, socket.AF_UNIX, stream) == ALLOW
        assert answer(machine, number, socket.AF_UNIX, packets) == ALLOW
        assert answer(machine, number, socket.AF_UNIX, socket.SOCK_DGRAM) == EPERM
        for family in (socket.AF_INET, socket.AF_INET6, 16, 17, 38, 40):
            assert answer(machine, number, family, stream) == EPERM
        for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, 16):
            assert answer(machine, number, family, socket.SOCK_DGRAM, together=True) == ALLOW
        for family in (17, 38, 40):
            assert answer(machine, number, family, stream, together=True) == EPERM


def test_calls_of_another_architecture_are_refused() -> None:
    i386 = 0x40000003
    for machine in MACHINES:
        assert answer(machine, 20, architecture=i386) == EPERM
    assert answer("x86_64", 0x40000000 | 39) == EPERM
    with pytest.raises(seccomp.Unsupported, match="no filter for s390x"):
        seccomp.program("s390x", together=False)


def test_both_machines_are_refused_the_same_but_for_what_one_has_not() -> None:
    only = set(syscalls.DENIED["x86_64"]) ^ set(syscalls.DENIED["aarch64"])
    assert only == {"symlink", "mknod", "iopl", "ioperm", "modify_ldt", "uselib"}


def test_landlocks_structures_are_the_kernels() -> None:
    assert ctypes.sizeof(landlock._RulesetAttr) == 24
    rule = landlock._PathBeneathAttr(allowed=0x1122334455667788, parent=7)
    assert bytes(rule) == (0x1122334455667788).to_bytes(8, sys.byteorder) + (7).to_bytes(
        4, sys.byteorder
    )


@pytest.mark.parametrize(
    ("version", "rights"),
    [(1, 0x1FFF), (2, 0x3FFF), (3, 0x7FFF), (4, 0x7FFF), (5, 0xFFFF), (6, 0xFFFF), (9, 0xFFFF)],
)
def test_only_rights_that_the_kernel_knows_are_asked_for(version: int, rights: int) -> None:
    assert int(landlock.known(version)) == rights


@pytest.mark.parametrize(
    ("version", "closed"),
    [(3, ["files"]), (4, ["files", "tcp"]), (6, ["files", "tcp", "signals"])],
)
def test_an_older_kernel_is_asked_for_less(
    monkeypatch: pytest.MonkeyPatch, version: int, closed: list[str]
) -> None:
    asked = []

    def syscall(number: int, attributes: object, *_: object) -> int:
        if attributes is None:
            return version
        given = ctypes.cast(attributes, ctypes.POINTER(landlock._RulesetAttr)).contents  # type: ignore[arg-type]
        asked.append((given.net, given.scoped))
        return 99

    monkeypatch.setattr(landlock.kernel, "syscall", syscall)
    assert landlock.Ruleset(tcp=False).closed == closed
    assert asked == [(3 if version >= 4 else 0, 3 if version >= 6 else 0)]


def test_code_is_found_package_by_package_and_linked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkout, installed = tmp_path / "checkout", tmp_path / "site"
    for path in ("checkout/ours", "checkout/data", "site/theirs", "site/theirs-1.dist-info"):
        (tmp_path / path).mkdir(parents=True)
    for path in ("checkout/ours/__init__.py", "checkout/one.py", "checkout/.env"):
        (tmp_path / path).write_text("")
    monkeypatch.setattr(sys, "path", [str(checkout), str(installed)])
    monkeypatch.setattr(sys, "modules", {})
    monkeypatch.setenv("PYTHONPATH", "")
    code = Code.find()
    assert code.installed == [installed]
    assert sorted(code.loose) == [checkout / "one.py", checkout / "ours"]
    code.link(tmp_path / "code")
    assert sorted(os.listdir(tmp_path / "code")) == ["one.py", "ours"]
    assert sys.path == [str(tmp_path / "code"), str(installed)]
    assert os.environ["PYTHONPATH"] == f"{tmp_path / 'code'}:{installed}"


@pytest.mark.parametrize(
    ("text", "ids"), [("2001", [2001]), ("2001-2003", [2001, 2002, 2003]), ("nobody", [65534])]
)
def test_users_are_named_in_three_ways(text: str, ids: list[int]) -> None:
    assert list(users.parse(text)) == ids


@pytest.mark.parametrize(
    "text", ["", "root", "0", "0-5", "7-3", "no such user", "-1", "4294967295"]
)
def test_root_and_nobody_at_all_are_no_users(text: str) -> None:
    with pytest.raises(ValueError, match="user"):
        users.parse(text)


def test_restrictions_survive_their_way() -> None:
    given = Restrictions("require", "/a b", together=True, user=7, missing={"cgroup": "none"})
    assert Restrictions.from_argument(given.to_argument()) == given


def tree(tmp_path: Path, controllers: str, *, mounted: bool = True) -> Path:
    """A process's view of a tree of cgroups, which is made of plain files."""
    proc, own = tmp_path / "proc", tmp_path / "cgroup" / "atmc" / "worker"
    own.mkdir(parents=True)
    proc.mkdir()
    mount = f"30 1 0:26 / {tmp_path}/cgroup rw - cgroup2 cgroup2 rw\n"
    (proc / "mountinfo").write_text(mount if mounted else "1 1 0:1 / / rw - ext4 a rw\n")
    (proc / "cgroup").write_text("1:memory:/old\n0::/atmc/worker\n")
    for folder in (own, own.parent):
        (folder / "cgroup.controllers").write_text(controllers)
        (folder / "cgroup.procs").write_text("")
    return proc


def test_a_delegated_cgroup_is_used_with_its_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc = tree(tmp_path, "cpuset cpu io memory pids")
    monkeypatch.setattr(cgroups.os, "geteuid", lambda: 1000)
    parent = cgroups.find(proc)
    assert parent.path == tmp_path / "cgroup" / "atmc"
    assert (parent.path / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    made = parent.make(memory=1 << 30, processes=100)
    limits = {name: (made.path / name).read_text() for name in ("memory.max", "pids.max")}
    assert limits == {"memory.max": "1073741824", "pids.max": "100"}
    cgroups.join(made.path)
    assert (made.path / "cgroup.procs").read_text() == "0"


@pytest.mark.parametrize(
    ("controllers", "mounted", "why"),
    [
        ("", True, "no controller of memory and pids"),
        ("memory pids", False, "no cgroups of version 2"),
    ],
)
def test_a_tree_without_controllers_is_not_used(
    tmp_path: Path, controllers: str, mounted: bool, why: str
) -> None:
    with pytest.raises(cgroups.NoCgroup, match=why):
        cgroups.find(tree(tmp_path, controllers, mounted=mounted))


def test_root_takes_no_cgroup_that_was_not_delegated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups.os, "geteuid", lambda: 0)
    with pytest.raises(cgroups.NoCgroup, match="was not delegated"):
        cgroups.find(tree(tmp_path, "memory pids"))


def test_by_hand_it_says_in_one_line_what_holds() -> None:
    done = subprocess.run([sys.executable, "-m", "sandbox"], capture_output=True, text=True)
    (line,) = done.stdout.splitlines()
    assert line.startswith("sandbox: ")
    assert (done.returncode == 0) == ("NO " not in line and "NETWORK" not in line)


def test_an_ordinary_user_is_shut_in_as_well(tmp_path: Path) -> None:
    python = Path("/usr/bin/python3")
    if os.geteuid() != 0 or not python.exists():
        pytest.skip(f"only root may become another user, and needs {python}")
    script = (
        "import os, sys; os.setgid(65534); os.setuid(65534)\n"
        "os.execv(sys.argv[1], [sys.argv[1], '-m', 'sandbox', '{}'])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", script, str(python)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/")
    answer = json.loads(done.stdout)
    if "files" not in answer["missing"]:
        assert answer["words"][0].startswith("landlock ")
    assert "network" not in answer["missing"]
    assert answer["words"][3] == "its parent's user"
