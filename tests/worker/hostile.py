"""A real child whose job is hostile: it tries what `job.json` names, and says what came of it.

`python hostile.py RESTRICTIONS` is `python -m worker.child --supervised RESTRICTIONS`, but that the
method is replaced, as by an upload that got past all checks. torch is not loaded.
"""

import ctypes
import errno
import json
import os
import platform
import socket
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import worker.child
from sandbox import syscalls
from worker.folder import RunFolder, write_json

LIBC = ctypes.CDLL(None, use_errno=True)
NUMBERS = {
    name: number
    for table in (syscalls.DENIED, syscalls.LOOKED_AT)
    for name, number in table.get(platform.machine(), {}).items()
}


def call(number: int, *arguments: object) -> str:
    """The error of a system call, or what it answers."""
    answer = LIBC.syscall(ctypes.c_long(number), *arguments)
    return errno.errorcode[ctypes.get_errno()] if answer == -1 else str(answer)


def read(path: str) -> str:
    return Path(path).read_text(errors="replace")


def append(path: str) -> str:
    with open(path, "a") as file:
        file.write("mine")
    return "written"


def listing(path: str) -> str:
    return " ".join(os.listdir(path)) or "empty"


def connect(family: str, kind: str, address: Any) -> str:
    with socket.socket(getattr(socket, family), getattr(socket, kind)) as made:
        made.connect(tuple(address) if isinstance(address, list) else address)
    return "connected"


def signal(pid: int, number: int) -> str:
    os.kill(pid, number)
    return "sent"


def attach(pid: int) -> str:
    return call(NUMBERS["ptrace"], 16, pid, None, None)


def memory(pid: int) -> str:
    with open(f"/proc/{pid}/mem", "rb") as file:
        return str(len(file.read(1)))


def denied(_: object) -> str:
    """The calls of the table that are answered with anything but EPERM."""
    table = syscalls.DENIED[platform.machine()].items()
    others = {name: call(number, 0, 0, 0, 0, 0) for name, number in table}
    return json.dumps({name: said for name, said in others.items() if said != "EPERM"})


def odd_calls(_: object) -> str:
    """clone3, a new user namespace by clone, and a call of x32's."""
    namespace = call(NUMBERS["clone"], 0x10000000 | 17, 0, 0, 0, 0)
    return " ".join([call(NUMBERS["clone3"], 0, 0), namespace, call(0x40000000 | 39)])


def link(path: str) -> str:
    os.symlink(path, FOLDER.results / "report.json")
    return "linked"


def pipe(_: object) -> str:
    os.mkfifo(FOLDER.path / "events.jsonl")
    return "made"


def in_a_program(path: str) -> str:
    """The same in what it executes."""
    script = "import sys; print(open(sys.argv[1]).read())"
    command = [sys.executable, "-c", script, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout or done.stderr.splitlines()[-1]


def bomb(most: int) -> str:
    """How many processes it gets that wait for its end."""
    reading, _ = os.pipe()
    children: list[int] = []
    try:
        while len(children) < most:
            if (child := os.fork()) == 0:
                os.setsid()
                os.read(reading, 1)
                os._exit(0)
            children.append(child)
    except OSError as error:
        return f"{error.strerror} after {len(children)}"
    return f"all {len(children)}"


def user(_: object) -> str:
    return f"{os.getuid()} {os.getgid()} {os.getgroups()}"


def home(_: object) -> str:
    (Path.home() / "cache").write_text("")
    return os.environ["TMPDIR"]


def run_in(folder: RunFolder, document: dict[str, Any]) -> None:
    global FOLDER
    FOLDER = folder
    said = {}
    for name, (what, *arguments) in document["attempts"].items():
        attempt: Callable[..., str] = globals()[what]
        try:
            said[name] = attempt(*arguments)
        except Exception as error:
            said[name] = f"{type(error).__name__}: {error}"
    write_json(folder.outcome, said)


if __name__ == "__main__":
    work = types.ModuleType("worker.work")
    vars(work).update(run_in=run_in, is_launched=lambda: False)
    sys.modules["worker.work"] = worker.work = work
    sys.argv[1:1] = ["--supervised"]
    worker.child.main()
