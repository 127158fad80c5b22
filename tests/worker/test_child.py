import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

import sandbox
from benchmarks.small_job import SPEC, TRAINING, child_command, fill_folder
from jobstore.events import EventType
from jobstore.settings import Settings
from worker.events import EventTail
from worker.process import ChildProcess
from worker.shelter import Shelter
from worker.supervisor import CHILD_COMMAND
from worker.work import _emitter
from worker.workplace import ChildFactory


def test_an_event_is_one_line_with_its_time_and_null_for_what_json_has_no_number_for(
    tmp_path: Path,
) -> None:
    path = tmp_path / "events.jsonl"
    with path.open("a") as file:
        emit = _emitter(file.write, file.flush)
        emit({"type": "metric", "stage": "training", "loss": float("nan"), "accuracy": 0.5})
        (line,) = path.read_text().splitlines()
    assert json.loads(line)["loss"] is None
    (event,) = EventTail(path).read()
    assert event.type is EventType.METRIC
    assert event.data == {"stage": "training", "loss": None, "accuracy": 0.5}
    assert event.time.tzinfo is not None


def test_only_whole_lines_are_read_and_again_until_they_are_confirmed(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tail = EventTail(path)
    assert tail.read() == []
    line = '{"time": "2026-01-02T03:04:05+00:00", "type": "metric", "epoch": 1}\n'
    path.write_text(line + line[:20])
    assert [event.data for event in tail.read()] == [{"epoch": 1}]
    assert len(tail.read()) == 1
    tail.confirm()
    assert tail.read() == []
    path.write_text(line + line)
    assert len(tail.read()) == 1


def test_a_supervised_child_ends_with_all_it_started_when_its_pipe_closes(
    tmp_path: Path, poll, is_running
) -> None:
    script = (
        "import subprocess, sys, time, worker.child as child, threading\n"
        "threading.Thread(target=child._end_with_supervisor, daemon=True).start()\n"
        "print(subprocess.Popen(['sleep', '600']).pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    grandchild = int(process.stdout.readline())
    assert is_running(grandchild)
    assert os.getpgid(grandchild) == process.pid
    process.stdin.close()
    assert process.wait(10) == -signal.SIGKILL
    poll(lambda: not is_running(grandchild), 5)


def test_a_process_whose_parent_ended_before_it_asked_ends_all_the_same() -> None:
    script = (
        "import os\n"
        "from worker.process import end_with_parent\n"
        "end_with_parent(os.getppid())\n"
        "print('lives', flush=True)\n"
        "end_with_parent(os.getpid())\n"  # Whoever that is, it is the parent no longer.
        "print('outlives it', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"lives\n")


def test_a_child_knows_neither_database_nor_broker_nor_store() -> None:
    script = (
        "import sys, worker.child\n"
        "print([name for name in ('jobstore', 'sqlalchemy', 'celery', 'obstore')"
        " if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert answer.stdout.strip() == b"[]"


def _sandboxed(script: str, **wish: Any) -> list[str]:
    """The lines that `script` prints after it has entered the sandbox."""
    enter = (
        "import sys, sandbox\n"
        "held = sandbox.enter(sandbox.Restrictions.from_argument(sys.argv[1]))\n"
    )
    argument = sandbox.Restrictions(**wish).to_argument()
    command = [sys.executable, "-c", enter + script, argument]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    return answer.stdout.splitlines()


def test_the_network_is_gone_but_for_a_loopback_of_the_child_s_own() -> None:
    """Of one whose processes train together; others have no sockets at all."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        script = (
            "import socket\n"
            "print(held.missing)\n"
            "print(sorted(name for _, name in socket.if_nameindex()))\n"
            f"print(socket.socket().connect_ex(('127.0.0.1', {port})) != 0)\n"
            "own = socket.create_server(('127.0.0.1', 0))\n"
            "print(socket.socket().connect_ex(own.getsockname()))\n"
        )
        missing, interfaces, refused, own = _sandboxed(script, together=True)
    if "network" in missing:
        pytest.skip("this platform does not let a process leave its network")
    assert (interfaces, refused, own) == ("['lo']", "True", "0")


def test_a_file_cannot_grow_past_its_limit_and_open_files_are_limited(tmp_path: Path) -> None:
    script = (
        "import os, resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"file = open({str(tmp_path / 'large')!r}, 'wb', buffering=0)\n"
        "try:\n    [file.write(bytes(2**19)) for _ in range(3)]\n"
        "except OSError as error: print(error.strerror)\n"
        "print(os.path.getsize(file.name))\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[1] <= 4096)\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE)[1], os.nice(0) >= 4)\n"
    )
    said = _sandboxed(script, file_bytes=2**20, folder=str(tmp_path))
    assert said == ["File too large", str(2**20), "True", "0 True"]


def test_a_waiting_child_costs_a_job_no_start_and_serves_one_job_only(tmp_path: Path, poll) -> None:
    factory = ChildFactory(CHILD_COMMAND, Shelter(Settings(home=tmp_path), tmp_path / "runs"))
    factory.warm_up()
    spare = factory._spare
    assert spare is not None
    assert spare._child is not None
    waiting = spare._child.pid
    # It has loaded the method, and waits for a line.
    poll(lambda: "libtorch" in Path(f"/proc/{waiting}/maps").read_text(), 60)
    poll(lambda: psutil.Process(waiting).status() == psutil.STATUS_SLEEPING)
    with factory.take(together=False) as workplace:
        # There is no job.json.
        child = workplace.begin()
        assert child.pid == waiting
        assert child.wait(30)
        assert workplace.end() == 1
        assert "job.json" in workplace.folder.log.read_text()
    assert not workplace.folder.path.exists()
    with factory.take(together=False) as another:
        assert another.folder != workplace.folder
        assert another.begin().pid != waiting
    factory.close()


def test_a_waiting_child_that_was_killed_costs_no_attempt(tmp_path: Path) -> None:
    # The restrictions, its last argument, are the shell's own name.
    command = ["sh", "-c", "sleep 60"]
    factory = ChildFactory(command, Shelter(Settings(home=tmp_path), tmp_path / "runs"))
    factory.warm_up()
    with factory.take(together=False) as workplace:
        assert workplace._child is not None
        waiting = workplace._child
        os.kill(waiting.pid, signal.SIGKILL)
        assert waiting.wait(30)
        child = workplace.begin()
        assert child is not waiting
        assert not child.exited()
        assert workplace.end() == -signal.SIGTERM
    factory.close()


def _events(folder: Path) -> list[dict[str, Any]]:
    path = folder / "events.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _descendants(pid: int) -> list[int]:
    return [process.pid for process in psutil.Process(pid).children(recursive=True)]


def _go_on_in_a_sandbox(folder: Path) -> None:
    """As the supervisor would, but by hand: in a place whose folder this one becomes."""
    wish = sandbox.Restrictions(folder=str(folder), together=True)
    child = ChildProcess([*CHILD_COMMAND, wish.to_argument()], folder / "child.log", folder)
    assert child.tell(str(folder))
    assert child.wait(120)
    said = (folder / "child.log").read_text()
    assert child.reap() == 0, said
    assert "sandbox: " in said


@pytest.mark.slow
def test_processes_that_train_together_end_with_the_child_and_go_on_where_they_were(
    tmp_path: Path, poll, is_running
) -> None:
    folder = tmp_path / "job"
    few = {"robust_epochs": 0, "compression_epochs": 3, "finish_epochs": 1, "batch_size": 100}
    fill_folder(folder, SPEC | {"training": few}, processes=2)
    child = ChildProcess(child_command(folder), folder / "child.log")
    poll(lambda: any(e.get("stage") == "compressing" for e in _events(folder)), 60)
    together = _descendants(child.pid)
    # torchrun and its two, each in a session of its own.
    assert len({os.getsid(pid) for pid in together}) == 3
    child._signal(signal.SIGKILL)
    assert child.reap() == -signal.SIGKILL
    poll(lambda: not any(is_running(pid) for pid in together), 10)
    assert not (folder / "outcome.json").exists()

    _go_on_in_a_sandbox(folder)
    headline = json.loads((folder / "outcome.json").read_text())["headline"]
    assert headline["k"] == headline["nonzeros"] == 3816
    (resumed,) = [event for event in _events(folder) if event["type"] == "resumed"]
    assert resumed["stage"] in (*TRAINING, "evaluating_upload")
    report = json.loads((folder / "results" / "report.json").read_text())
    assert report["environment"]["processes"] == 2
