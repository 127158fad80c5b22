import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from jobstore.events import EventType
from worker.child import _emitter
from worker.events import EventTail


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


def test_a_child_knows_neither_database_nor_broker_nor_store() -> None:
    script = (
        "import sys, worker.child\n"
        "print([name for name in ('jobstore', 'sqlalchemy', 'celery', 'obstore')"
        " if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert answer.stdout.strip() == b"[]"
