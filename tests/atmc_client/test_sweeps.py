"""`atmc sweep` and `atmc sweeps` on a running API, whose trials a test has succeed."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from atmc_client import ApiError, Client
from atmc_client.cli.figure import Point, figure, file_size
from jobstore import jobs, leases
from jobstore.database import Database, make_engine
from jobstore.states import JobState
from jobstore.wakeups import make_celery
from keeper.trials import Conductor
from tests.api.conftest import HEADLINE
from tests.atmc_client.conftest import ROOT
from tests.atmc_client.test_cli import files as files_to_send

files = files_to_send


@pytest.fixture
def database(api_settings, api_url):
    database = Database(make_engine(api_settings))
    yield database
    database.engine.dispose()


@pytest.fixture
def conductor(api_settings, database):
    """The keeper's part: turns trials into jobs."""
    return Conductor(api_settings, database, make_celery(api_settings), threading.Event())


@pytest.fixture
def sweep(atmc, files):
    """Starts a sweep with further options."""

    def run(*options):
        data = ("--dataset", files / "data.npz", "--architecture", "digits_cnn")
        return atmc("sweep", files / "model.safetensors", *data, "--epsilon", "0.1", *options)

    return run


def begun(sweep, *options):
    done = sweep(*options, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def succeed(database, conductor, sweep, robust_accuracy, file_bytes):
    """Have the sweep's next trial begin and succeed with these figures."""
    conductor.advance_all()
    claimed, of_sweep = None, False
    while not of_sweep:  # Other tests have left jobs of theirs.
        with database.write() as session:
            claimed = leases.claim(session, "worker", lease_s=60)
            assert claimed is not None
            of_sweep = jobs.get_job(session, claimed[1].job_id).sweep_id == sweep["id"]
    figures = {"robust_accuracy_after": robust_accuracy, "file_bytes": file_bytes}
    with database.write() as session:
        leases.finish(
            session, claimed[1], JobState.SUCCEEDED, headline=HEADLINE | figures, artifacts=[]
        )
    conductor.advance_all()


def test_values_stand_one_after_the_other_and_make_a_grid(atmc, sweep):
    options = ("--densities", ".1", ".05", "--bits", "8,4", "--set", "training.robust_epochs=1")
    more = ("--vary", "training.rho=0.001,0.01", "--max-parallel", 2, "--from-scratch")
    made = begun(sweep, *options, *more, "--name", "first")
    assert made["grid"] == {
        "densities": [0.1, 0.05],
        "bits": [8, 4],
        "fields": {"training.rho": [0.001, 0.01]},
    }
    assert (made["name"], made["max_parallel"], made["from_denser"]) == ("first", 2, False)
    assert made["spec"]["training"] == {"robust_epochs": 1}
    assert len(made["trials"]) == 8
    # What was sent stands for the files from then on.
    again = atmc(
        *("sweep", "--seeds", 1, 2, "--dataset", made["dataset_id"], "--epsilon", "0.1"),
        *("--set", "target.density=0.1", "--set", "target.bits=4", made["model_id"], "--json"),
    )
    assert again.returncode == 0, again.stderr
    second = json.loads(again.stdout)
    assert (second["model_id"], second["grid"]) == (made["model_id"], {"seeds": [1, 2]})

    listed = json.loads(atmc("sweeps", "--state", "running", "--json").stdout)
    assert [each["id"] for each in listed[:2]] == [second["id"], made["id"]]
    assert re.search(rf"{made['id']} +first +running +8 planned", atmc("sweeps").stdout)
    shown = atmc("sweeps", "show", made["id"])
    assert re.search(r"trial +density +bits +rho +state +clean +robust +bytes", shown.stdout)
    assert re.search(r"7 +0\.05 +4 +0\.01 +planned", shown.stdout)
    for each in (made, second):
        cancelled = json.loads(atmc("sweeps", "cancel", each["id"], "--no-wait", "--json").stdout)
        assert cancelled["id"] == each["id"]


def test_one_is_followed_to_its_end_with_its_figure_and_deleted(
    atmc, sweep, database, conductor, api_url
):
    made = begun(sweep, "--densities", ".1", ".05", "--bits", "4", "--from-scratch")
    figures = [(0.8, 40_000), (0.75, 20_000)]

    def work():
        try:
            for each in figures:
                succeed(database, conductor, made, *each)
        except BaseException:
            with Client(api_url) as client:
                client.cancel_sweep(made["id"])
            conductor.advance_all()
            raise

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        watched = atmc("sweeps", "watch", made["id"])
        working.result()
    assert watched.returncode == 0, watched.stderr
    lines = watched.stderr.splitlines()
    assert "trial 0 (density 0.1, bits 4): succeeded" in watched.stderr, lines
    assert all(line.startswith(f"{made['id']}: trial ") for line in lines)
    assert re.search(r"0 +0\.1 +4 +succeeded .* 80\.00 % +40,000 +★ best", watched.stdout)
    assert re.search(r"1 +0\.05 +4 +succeeded .* 75\.00 % +20,000 +● ", watched.stdout)
    assert "★0" in watched.stdout
    assert "●1" in watched.stdout
    ended = json.loads(atmc("sweeps", "show", made["id"], "--json").stdout)
    job = ended["trials"][0]["job_id"]
    assert f"best: trial 0 (density 0.1, bits 4): atmc download {job}" in watched.stdout
    with Client(api_url) as client:
        assert client.get_sweep(made["id"], wait_s=10)["front"] == [0, 1]
        assert {each["id"] for each in client.list_jobs(sweep_id=made["id"])} == {
            trial["job_id"] for trial in ended["trials"]
        }
        told = list(client.sweep_events(made["id"], follow=True))
        assert [event["seq"] for event in told] == list(range(1, len(told) + 1))
        assert told[-1]["state"] == "succeeded"
    events = atmc("sweeps", "show", made["id"], "--events", "--json").stdout.splitlines()
    assert list(map(json.loads, events)) == told
    assert atmc("sweeps", "cancel", made["id"]).returncode == 2
    assert atmc("sweeps", "delete", made["id"]).returncode == 0
    assert "not_found" in atmc("sweeps", "show", made["id"]).stderr
    assert "not_found" in atmc("show", job).stderr


def test_on_a_terminal_it_is_live_and_ctrl_c_says_how_to_come_back(
    atmc, sweep, database, conductor, api_url
):
    made = begun(sweep, "--densities", ".1", ".05", "--bits", "4", "--from-scratch")
    succeed(database, conductor, made, 0.8, 40_000)
    command = [sys.executable, "-m", "atmc_client", "--server", api_url, "sweeps", "watch"]
    ours, its = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(
        [*command, made["id"]],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=its,
        start_new_session=True,
        # Whoever started the tests may have had them ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(its)
    seen = ""
    while "best: trial 0" not in seen:
        seen += os.read(ours, 65_536).decode()
    process.send_signal(signal.SIGINT)
    try:
        while more := os.read(ours, 65_536).decode():
            seen += more
    except OSError:
        pass  # The other end is closed.
    os.close(ours)
    assert process.wait(10) == 130
    assert process.stdout.read() == b""
    process.stdout.close()
    plain = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", seen)
    assert "80.00 %" in plain
    assert "★0" in plain
    again = f"atmc --server {api_url} sweeps"
    come_back = f"the sweep goes on: {again} watch {made['id']}, or {again} cancel"
    assert come_back in plain.replace("\r\n", " ")
    assert atmc("sweeps", "cancel", made["id"], "--no-wait").returncode == 0


def test_a_floor_is_a_goal(sweep, atmc):
    made = begun(sweep, "--floor", "autoattack=.5", "--trials", 3)
    assert made["goal"] == {"robust_accuracy": 0.5, "attack": "autoattack"}
    assert (made["grid"], made["minimise"]) == (None, "file_bytes")
    assert atmc("sweeps", "cancel", made["id"], "--no-wait").returncode == 0


def test_what_is_refused_leaves_nothing_behind(sweep, new_files, api_url):
    with Client(api_url) as client:
        sent: list[str] = []
        upload = client._upload

        def watched(*arguments):
            sent.append(upload(*arguments))
            return sent[-1]

        client._upload = watched
        wrong = {"method": "atmc", "threat": {"norm": "linf", "epsilon": 0.1}}
        with pytest.raises(ApiError, match=r"invalid_value \(grid.bits\[1\]\)"):
            client.sweep(
                *(new_files / "model.safetensors", new_files / "data.npz", wrong),
                architecture="digits_cnn",
                grid={"densities": [0.1], "bits": [4, 9]},
            )
        assert len(sent) == 2
        for each in sent:
            with pytest.raises(ApiError, match="not_found"):
                client._get(each["links"]["self"])
    done = sweep("--densities", ".1", "--bits", "4", "9")
    assert (done.returncode, done.stdout) == (2, "")
    assert "invalid_value (grid.bits[1])" in done.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "nothing to try"),
        (("--densities", ".1", "--floor", ".5"), "exclude each other"),
        (("--densities", ".1", "dense"), "unexpected extra argument"),
        (("--densities", "dense"), "could not convert"),
        (("--densities", ".1", "--trials", "3"), "go with --floor"),
        (("--floor", "autoattack"), "autoattack=.5"),
        (("--vary", "training.rho"), "PATH=VALUE"),
        (("--specs", "pyproject.toml"), "not JSON"),
        (("--bits", "4", "--dataset", "nowhere.npz"), "there is no file 'nowhere.npz'"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_sent(sweep, options, said):
    done = sweep(*options)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_the_figure_has_a_log_axis_and_the_floor_as_a_line():
    points = [
        Point(0, 1_000, 0.95, 0.6, front=False, best=False),
        Point(1, 10_000, 0.97, 0.9, front=True, best=True),
        Point(2, 100_000, 0.99, 0.92, front=True, best=False),
    ]
    lines = figure(points, 0.7, 80).plain.splitlines()
    columns = [next(line.index(mark) for line in lines if mark in line) for mark in ("·0", "★1")]
    columns.append(next(line.index("●2") for line in lines if "●2" in line))
    assert columns[2] - columns[1] == pytest.approx(columns[1] - columns[0], abs=1)
    assert max(map(len, lines)) <= 80
    (floor,) = [line for line in lines if line.startswith(" 70 %")]
    assert floor.count("─") > 60
    places = {
        text: i for i, line in enumerate(lines) for text in ("★1", "·0", "70 %") if text in line
    }
    assert places["★1"] < places["70 %"] < places["·0"]
    assert "1 KB" in lines[-2]
    assert "100 KB" in lines[-2]


def test_a_figure_of_one_point_is_a_figure():
    lines = figure([Point(0, 4_374, 1.0, 1.0, front=True, best=True)], None, 40).plain.splitlines()
    assert any("★0" in line for line in lines)
    assert [file_size(n) for n in (950, 4_374, 35_000, 2 * 10**6)] == [
        *("950 B", "4.37 KB", "35 KB", "2 MB")
    ]
