"""Kills every part of the service while jobs train, and counts what was lost.

`python -m benchmarks.chaos --minutes 10` submits small but real ATMC jobs to a service with two
workers, and a sweep. At random moments it kills, with SIGKILL, the child, a whole worker, the API,
the keeper, the broker (which restarts empty) or PostgreSQL, takes the object store away for a
while, or pauses a worker for longer than its lease. The last line of its output is a JSON object:

- `jobs`: how many jobs were accepted, the trials of a sweep included, which is submitted first;
- `kills`: how many kills hit while the events showed training, and `victims`, the same by victim;
- `lost`: how many jobs are gone, did not succeed, or have no artifact that can be fetched;
- `wrong`: how many artifacts differ from an undisturbed run's, and how many histories are
  impossible;
- `fallen`: the parts that ended by themselves and were started again, as compose would do;
- `seed`: the seed, which repeats the schedule of victims and pauses (but not the machine's timing).
"""

import argparse
import math
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import pairwise
from typing import Any

import httpx
import psutil
from sqlalchemy import select
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from benchmarks.house import House, Part, house, wait_until
from benchmarks.small_job import ARCHITECTURE, SPEC, TRAINING, child_at_work, undisturbed, uploads
from benchmarks.timing import print_result
from jobstore import artifacts, events, jobs, sweeps
from jobstore.objects import blob_key
from jobstore.states import ACTIVE, FINAL, JobState, SweepState
from jobstore.tables import Job

# The jobs differ in their seeds, so that a result in the wrong place is noticed.
SEEDS = (0, 1, 2)
SETTINGS = {
    "lease_s": 4,
    "heartbeat_s": 1,
    "sweep_s": 1,
    "max_attempts": 1000,
    "threads": 1,
    "device": "cpu",
}
# How long the object store stays away.
STORE_AWAY_S = 20.0
# The longest time between two kills, not counting the wait for a job in training.
CALM_S = 8.0
# How long a worker is paused; this is longer than its lease.
PAUSE_S = 8.0
# The number of jobs that are unfinished at a time.
UNFINISHED = 4
# The longest waits: for a job in training, for all jobs to end, and past the end of the kills.
TRAINING_WITHIN_S, SETTLED_WITHIN_S, OVERTIME_S = 300, 1800, 600
# A request is tried so often, every so many seconds.
_TRIES, _POLL_S = 1500, 0.2
VICTIMS = ("child", "worker", "api", "broker", "postgres", "s3", "pause", "keeper")


@dataclass
class Chaos:
    """One run of the benchmark.

    Attributes:
        house: the running service.
        draw: draws victims and pauses.
        victims: the kinds of kills.
        calm_s: the longest time between two kills.
        accepted: the accepted jobs' ids, and the seed of each.
        sweep: the id of the sweep, whose trials are added to the accepted jobs in the end.
        kills: how many kills hit, by victim.
        fallen: how often each part ended by itself.
    """

    house: House
    draw: random.Random
    victims: tuple[str, ...] = VICTIMS
    calm_s: float = CALM_S
    accepted: dict[str, int] = field(default_factory=dict)
    sweep: str | None = None
    kills: Counter[str] = field(default_factory=Counter)
    fallen: Counter[str] = field(default_factory=Counter)
    _ids: dict[str, str] = field(default_factory=dict)
    # The victims of this round: in each round, every victim is killed once, in random order.
    _round: list[str] = field(default_factory=list)
    _back: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def submit(self) -> None:
        """Submit one more job; it is sent again, with the same key, until there is an answer."""
        number = len(self.accepted)
        body = self.upload() | SPEC | {"seed": SEEDS[number % len(SEEDS)], "name": f"{number}"}
        answer = self._post("/jobs", f"job-{number}", json=body)
        self.accepted[answer["id"]] = body["seed"]

    def begin_sweep(self) -> None:
        """Begin a sweep of a trial for each seed, which are as the other jobs are."""
        body = self.upload() | {"spec": SPEC, "grid": {"seeds": list(SEEDS)}}
        self.sweep = self._post("/sweeps", "sweep", json=body)["id"]

    def sweep_state(self) -> SweepState:
        """The state of the sweep; that it runs, if the database cannot be reached."""
        database = self.house.database()
        try:
            with database.read() as session:
                return sweeps.get_sweep(session, str(self.sweep)).state
        except (OperationalError, InterfaceError):
            return SweepState.RUNNING
        finally:
            database.engine.dispose()

    def upload(self) -> dict[str, str]:
        """Upload the network and the data set, if that has not been done; returns their ids."""
        if not self._ids:
            model, dataset = uploads()
            sent = {"file": ("m.safetensors", model)}
            architecture = {"architecture": ARCHITECTURE}
            made = self._post("/models", "model", files=sent, data=architecture)
            data = self._post("/datasets", "dataset", files={"file": ("d.npz", dataset)})
            self._ids = {"model_id": made["id"], "dataset_id": data["id"]}
        return self._ids

    def _post(self, path: str, key: str, **content: Any) -> dict[str, Any]:
        headers = {"Idempotency-Key": key}
        for _ in range(_TRIES):
            self.bring_back()
            with suppress(httpx.TransportError):
                url = f"{self.house.url}{path}"
                answer = httpx.post(url, headers=headers, timeout=10, **content)
                if answer.is_success:
                    document: dict[str, Any] = answer.json()
                    return document
                # After an API was killed during this request, 409 says that it is still running.
                if answer.status_code < 500 and answer.status_code != 409:
                    raise RuntimeError(answer.text)
            time.sleep(_POLL_S)
        raise TimeoutError(f"POST {path} was not answered")

    def training(self) -> list[tuple[str, str]]:
        """The ids and owners of the active jobs whose events show an epoch of training."""
        database = self.house.database()
        try:
            with database.read() as session:
                held = session.scalars(select(Job).where(Job.state.in_(ACTIVE))).all()
                return [
                    (job.id, job.owner)
                    for job in held
                    if job.owner is not None
                    and job.stage in TRAINING
                    and any(
                        event.type == "progress" and event.data["stage"] in TRAINING
                        for event in events.list_events(session, job.id)
                    )
                ]
        except (OperationalError, InterfaceError):
            return []
        finally:
            database.engine.dispose()

    def unfinished(self) -> int:
        """How many accepted jobs, the sweep being one, have not ended; all, without a database."""
        at_work = self.sweep is not None and self.sweep_state() is SweepState.RUNNING
        return self._unfinished_jobs() + at_work

    def _unfinished_jobs(self) -> int:
        database = self.house.database()
        try:
            with database.read() as session:
                heads = jobs.heads_of(session, self.accepted)
        except (OperationalError, InterfaceError):
            return len(self.accepted)
        finally:
            database.engine.dispose()
        return sum(head.state not in FINAL for head in heads.values())

    def kill_one(self) -> None:
        """Wait until a job trains, then kill the next victim, which is started again."""
        if not self._round:
            self._round = self.draw.sample(self.victims, len(self.victims))
        victim = self._round.pop()
        calm_until = time.monotonic() + self.draw.uniform(0.0, self.calm_s)
        self._wait_for(lambda: time.monotonic() > calm_until or not self.unfinished())
        self._wait_for(lambda: self.training() or not self.unfinished())
        found = self.training()
        if found and getattr(self, f"_kill_{victim}")(self.draw.choice(found)[1]):
            self.kills[victim] += 1
            print(f"{victim} killed while {len(found)} trained", file=sys.stderr, flush=True)

    def _wait_for(self, true: Callable[[], object]) -> None:
        def check() -> object:
            self.bring_back()
            return true()

        wait_until(check, TRAINING_WITHIN_S, "a job in training")

    def bring_back(self) -> None:
        """Start the parts again that have been away for long enough."""
        self.fallen.update(self.house.tend())
        due = [action for moment, action in self._back if moment <= time.monotonic()]
        self._back = [each for each in self._back if each[0] > time.monotonic()]
        for action in due:
            action()

    def _owner_part(self, owner: str) -> Part | None:
        for name, part in self.house.parts.items():
            if name.startswith("worker") and part.process and f"-{part.process.pid}-" in owner:
                return part
        return None

    def _process_of(self, owner: str) -> "subprocess.Popen[bytes] | None":
        part = self._owner_part(owner)
        return part.process if part else None

    def _kill_child(self, owner: str) -> bool:
        process = self._process_of(owner)
        child = child_at_work(process.pid) if process else None
        with suppress(psutil.NoSuchProcess):
            if child is not None:
                child.kill()
                return True
        return False

    def _kill_worker(self, owner: str) -> bool:
        part = self._owner_part(owner)
        if part is None:
            return False
        part.start()
        return True

    def _kill_pause(self, owner: str) -> bool:
        process = self._process_of(owner)
        if process is None:
            return False
        process.send_signal(signal.SIGSTOP)
        wake = lambda: process.send_signal(signal.SIGCONT)  # noqa: E731
        self._back.append((time.monotonic() + PAUSE_S, wake))
        return True

    def _kill_api(self, _: str) -> bool:
        self.house.parts["api"].start()
        return True

    def _kill_keeper(self, _: str) -> bool:
        self.house.parts["keeper"].start()
        return True

    def _kill_broker(self, _: str) -> bool:
        self.house.parts["broker"].start()
        return True

    def _kill_postgres(self, _: str) -> bool:
        self.house.restart_postgres()
        return True

    def _kill_s3(self, _: str) -> bool:
        part = self.house.parts["s3"]
        if part.process is None or part.process.poll() is not None:
            return False
        part.kill()
        self._back.append((time.monotonic() + STORE_AWAY_S, part.start))
        return True

    def settle(self, within_s: float) -> None:
        """Wait until all parts are back and all jobs have ended."""
        deadline = time.monotonic() + within_s
        while self.unfinished() and time.monotonic() < deadline:
            self.bring_back()
            time.sleep(_POLL_S)
        while self._back:
            self.bring_back()
            time.sleep(_POLL_S)

    def count(self, expected: dict[int, str]) -> dict[str, Any]:
        """Return the numbers `lost` and `wrong`, and print what is lost and wrong."""
        lost, wrong = [], []
        database, store = self.house.database(), self.house.store()
        with database.read() as session:
            if self.sweep is not None:
                wrong += self._add_trials(session)
            for job_id, seed in self.accepted.items():
                job = session.get(Job, job_id)
                if job is None or job.state is not JobState.SUCCEEDED:
                    lost.append(f"{job_id}: {job.state if job else 'gone'}")
                    continue
                artifact = artifacts.get_artifact(session, job_id, "model.atmc")
                wait_until(self.house.store_is_up, 60, "the object store")
                with store.open(blob_key(artifact.sha256)) as file:
                    digest = sha256(file.read()).hexdigest()
                if not digest == artifact.sha256 == expected[seed]:
                    wrong.append(f"{job_id}: artifact {digest}, expected {expected[seed]}")
                wrong += history_faults(job, events.list_events(session, job_id, limit=100_000))
        database.engine.dispose()
        for line in [*lost, *wrong]:
            print(line, file=sys.stderr)
        return {"lost": len(lost), "wrong": len(wrong)}

    def _add_trials(self, session: Session) -> list[str]:
        """Add the sweep's trials to the accepted jobs; returns what is wrong with the sweep."""
        state = sweeps.get_sweep(session, str(self.sweep)).state
        trials = sweeps.list_trials(session, str(self.sweep))
        self.accepted |= {str(trial.row.job_id): trial.row.spec["seed"] for trial in trials}
        named = sorted(str(trial.row.job_id) for trial in trials)
        made = session.scalars(select(Job.id).where(Job.sweep_id == self.sweep).order_by(Job.id))
        faults = [] if state is SweepState.SUCCEEDED else [f"the sweep is {state.value}"]
        if list(made) != named:
            faults.append("a trial of the sweep was made twice, or lost")
        told = [event.seq for event in sweeps.list_events(session, str(self.sweep))]
        return faults + ([] if told == list(range(1, len(told) + 1)) else ["gaps in its events"])


# The states that may follow each state in the events.
_NEXT = {
    "queued": {"validating"},
    "validating": {"running", "queued", "succeeded"},
    "running": {"queued", "succeeded"},
    "succeeded": set[str](),
}


def history_faults(job: Job, told: list[Any]) -> list[str]:
    """The contradictions in a job's events, as sentences."""
    faults = []
    if [event.seq for event in told] != list(range(1, job.last_event_seq + 1)):
        faults.append(f"{job.id}: gaps in its events")
    states = [event.data["state"] for event in told if event.type == "state"]
    for before, after in pairwise(states):
        if after not in _NEXT[before]:
            faults.append(f"{job.id}: {before} became {after}")
    numbers = [event.attempt for event in told]
    if numbers != sorted(numbers):
        faults.append(f"{job.id}: a former attempt wrote after a later one")
    return faults


def run(
    *,
    seed: int,
    seconds: float,
    batch: int | None = None,
    victims: tuple[str, ...] = VICTIMS,
    calm_s: float = CALM_S,
    most_kills: float = math.inf,
    workers: int = 2,
    with_sweep: bool = True,
) -> dict[str, Any]:
    """Run the benchmark; returns its figures.

    Args:
        seed: seeds the victims and pauses.
        seconds: how long jobs are submitted and parts are killed.
        batch: submit this many jobs at the start instead, and no more.
        victims: the kinds of kills.
        calm_s: the longest time between two kills.
        most_kills: the largest number of kills.
        workers: how many there are.
        with_sweep: whether a sweep is among the jobs.
    """
    expected = {each: undisturbed(each) for each in (SEEDS if with_sweep else SEEDS[:batch])}
    with house(workers, settings=SETTINGS) as made:
        chaos = Chaos(made, random.Random(seed), victims, calm_s)
        until = time.monotonic() + seconds
        if with_sweep:
            chaos.begin_sweep()
        for _ in range(batch or UNFINISHED):
            chaos.submit()
        while chaos.unfinished() and (batch is not None or time.monotonic() < until):
            if chaos.kills.total() >= most_kills:
                break
            chaos.kill_one()
            while batch is None and time.monotonic() < until and chaos.unfinished() < UNFINISHED:
                chaos.submit()
            if time.monotonic() > until + OVERTIME_S:
                break
        chaos.settle(SETTLED_WITHIN_S)
        figures = chaos.count(expected)
    kills = chaos.kills.total()
    return (
        {"jobs": len(chaos.accepted), "kills": kills}
        | figures
        | {
            "seed": seed,
            "victims": dict(sorted(chaos.kills.items())),
            "fallen": dict(sorted(chaos.fallen.items())),
        }
    )


def main() -> int:
    """Print one JSON line; returns the exit status, 1 if anything was lost or wrong."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--jobs", type=int, help="a batch of so many instead of a stream")
    parser.add_argument("--seed", type=int, default=None, help="by default a new one")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(2**31) if options.seed is None else options.seed
    print(f"seed {seed}", file=sys.stderr, flush=True)
    figures = run(seed=seed, seconds=60 * options.minutes, batch=options.jobs)
    print_result(figures)
    return int(figures["lost"] + figures["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(main())
