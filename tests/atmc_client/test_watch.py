"""`atmc watch`, `logs` and what else follows: live, line by line, and left by Ctrl-C."""

import json
import re
import signal
from contextlib import suppress

import pytest

from atmc_client.cli.sparkline import sparkline
from atmc_client.cli.watch import said
from jobstore import leases
from jobstore.events import EventType, NewEvent
from jobstore.states import JobState
from tests.api.conftest import HEADLINE
from tests.atmc_client.terminal import Terminal
from tests.atmc_client.test_cli import OPTIONS
from tests.atmc_client.test_cli import files as files_to_send
from tests.atmc_client.test_cli import submit as submits

files, submit = files_to_send, submits


@pytest.fixture
def trained(database, submit):
    """A job of which a worker told two epochs of training: its id, and what ends it."""
    made = submit(*OPTIONS, "--json", "--priority", 100)
    job = json.loads(made.stdout)["id"]
    with database.write() as session:
        claimed = leases.claim(session, "worker", lease_s=60)
        assert claimed is not None
        assert claimed[1].job_id == job
    stage = {"stage": "robust_training"}
    told = [NewEvent(EventType.STAGE, {**stage, "status": "started"})]
    for epoch, (loss, accuracy) in enumerate([(2.0, 0.25), (0.5, 0.75)], 1):
        figures = {"loss": loss, "validation_accuracy": accuracy}
        counted = {"epochs": 4, "progress": 0.25 * epoch, "eta_s": 61.0}
        told.append(NewEvent(EventType.METRIC, {**stage, "epoch": epoch, **figures}))
        told.append(NewEvent(EventType.PROGRESS, {**stage, "epoch": epoch, **counted}))
    with database.write() as session:
        leases.report(session, claimed[1], told)

    def end():
        with database.write() as session:
            leases.finish(session, claimed[1], JobState.SUCCEEDED, headline=HEADLINE, artifacts=[])

    yield job, end
    with database.write() as session, suppress(leases.LeaseLost):
        leases.finish(session, claimed[1], JobState.CANCELLED)


def test_on_a_terminal_training_is_drawn_until_the_job_has_ended(api_url, trained):
    job, end = trained
    terminal = Terminal("--server", api_url, "watch", job)
    terminal.until("validation accuracy")
    end()
    code, written = terminal.end()
    assert code == 0
    assert re.search(r"robust_training 2/4 +[━╸╺]+ +50 % +0:01:01 left", terminal.plain)
    assert re.search(r"loss +█▁ +0.5\b", terminal.plain)
    assert re.search(r"validation accuracy +▁█ +75.0 %", terminal.plain)
    assert f"{job}: succeeded" in written


@pytest.mark.parametrize("command", ["watch", "logs --follow", "gate --min clean_accuracy=0"])
def test_ctrl_c_leaves_the_job_at_work_and_says_how_to_come_back(api_url, trained, command):
    job, _ = trained
    terminal = Terminal("--server", api_url, *command.split(), job)
    if command.startswith("logs"):
        line = ""
        while "step 2" not in line:
            line = terminal.process.stdout.readline()
    else:
        terminal.until("validation accuracy")
    terminal.process.send_signal(signal.SIGINT)
    code, _ = terminal.end()
    assert code == 130
    back = "logs --follow" if command.startswith("logs") else "watch"
    atmc = f"atmc --server {api_url}"
    told = f"the job goes on: {atmc} {back} {job}, or {atmc} cancel {job}"
    assert told in terminal.plain.replace("\r\n", "")


def test_elsewhere_it_is_a_line_a_stage_and_one_of_training(atmc, trained):
    job, end = trained
    end()
    done = atmc("watch", job)
    assert done.returncode == 0
    lines = done.stderr.splitlines()[1:]
    training = "robust_training, epoch 2: loss 0.5, validation accuracy 75.0 %"
    assert lines == [f"{job}: {training}", f"{job}: succeeded"]
    assert "\x1b" not in done.stderr
    assert json.loads(atmc("watch", job, "--json").stdout)["id"] == job


def test_a_job_that_did_not_succeed_is_exit_code_1(atmc, submit):
    job = json.loads(submit(*OPTIONS, "--json").stdout)["id"]
    assert atmc("cancel", job).returncode == 0
    assert atmc("watch", job).returncode == 1


def test_logs_are_lines_to_read_or_every_event(atmc, trained):
    job, end = trained
    end()
    lines = atmc("logs", job).stdout.splitlines()
    assert [line[20:] for line in lines] == [
        "INFO    state: queued, attempt 0",
        "INFO    state: validating, attempt 1",
        "INFO    robust_training: started",
        "INFO    state: running, attempt 1",
        "INFO    robust_training: step 1: loss 2, validation accuracy 0.25",
        "INFO    robust_training: step 2: loss 0.5, validation accuracy 0.75",
        "INFO    state: succeeded, attempt 1",
    ]
    followed = atmc("logs", job, "--follow", "--json").stdout.splitlines()
    events = [json.loads(line) for line in followed]
    assert followed == atmc("logs", job, "--json").stdout.splitlines()
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert [event["type"] for event in events].count("progress") == 2


def test_what_others_wrote_moves_no_cursor():
    problem = {"code": "odd", "param": "model", "message": "\x1b[2Jgone\nINFO all is well"}
    line = said({"type": "error", "time": "2030-01-01T00:00:00.5Z", **problem})
    assert line == "2030-01-01 00:00:00 ERROR   error: odd (model):  [2Jgone INFO all is well"
    unknown = {"type": "moved", "time": "2030-01-01T00:00:00Z", "seq": 1, "to": "x"}
    assert said(unknown) == "2030-01-01 00:00:00 INFO    moved: {'to': 'x'}"


@pytest.mark.parametrize(
    ("values", "width", "line"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
        ([3, 3], 8, "▁▁"),
        ([0, 0, 1, 1], 2, "▁█"),
        ([1, float("nan"), 2], 8, "▁ █"),
        ([float("inf")], 8, " "),
        ([], 8, ""),
    ],
)
def test_a_sparkline_has_the_lowest_at_the_bottom(values, width, line):
    assert sparkline(values, width) == line
