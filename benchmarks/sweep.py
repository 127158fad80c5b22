"""What a sweep costs against jobs from scratch: LeNet on MNIST, a front of six points.

    python -m benchmarks.sweep [--preset standard] [--train-images N] [--goal 0.5]

Both sides are real: the service with its servers and one worker, in a temporary folder. One side is
a sweep of the densities, whose trials share what they can and start from their denser neighbours.
The other is a job for each density, each of a tenant of its own, so that it shares nothing. Cost is
the CPU seconds of the worker's children. With ``--goal FLOOR`` a third side looks for the smallest
file whose robust accuracy holds the floor on validation images, and a fourth is a grid of the
densities about its answer, each a lattice's step from the next.

What is finished is kept in ``--work``, and a run that was ended goes on with the rest. The last
line is a JSON object: ``front_cost_ratio`` (the sweep's cost over the mean of a job from scratch),
``front_accuracy_loss`` (the mean over the points of what the sweep's robust accuracy is below that
of the job from scratch), ``front_largest_loss``, ``front_within_interval`` (at how many points the
sweep's figure is in the other's 95 % interval or above it), and with a goal ``goal_cost_ratio`` and
``goal_bytes_ratio`` (its file over the smallest of that grid that holds the floor on the same
images; null if none does).
"""

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import torch
from pydantic import SecretStr
from safetensors.torch import save

from atmc_core.networks.architectures import build
from benchmarks.datasets import unpacked
from benchmarks.house import House, house
from benchmarks.options import count
from benchmarks.timing import print_result, say
from tuning.search import density_at, level_of

ADMIN_KEY = "the-admin-of-the-sweep-benchmark"
_POLL_S, _SAMPLE_S = 1.0, 0.25
_ENDED = ("succeeded", "failed", "cancelled")
# So many steps of the lattice on both sides of a goal's answer are looked at.
_AROUND = 4

Point = dict[str, Any]
Side = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--densities", nargs="+", type=float, default=[0.2, 0.1, 0.05, 0.03, 0.02, 0.01]
    )
    parser.add_argument("--bits", type=int, default=8)
    parser.add_argument("--preset", default="standard", help="of every job's training")
    parser.add_argument("--steps", type=count, default=7, help="of training's attack")
    parser.add_argument("--train-images", type=count, default=10_000)
    parser.add_argument("--images", type=count, default=1000, help="that are evaluated")
    parser.add_argument("--level", default="quick", help="of the evaluation")
    parser.add_argument("--attacks", nargs="+", help="of the report; by default the level's")
    parser.add_argument("--pgd-steps", type=count, default=20)
    parser.add_argument("--batch-size", type=count, default=128)
    parser.add_argument("--goal", type=float, help="the floor of a goal; by default no goal")
    parser.add_argument("--trials", type=count, default=8, help="of the goal, at most")
    parser.add_argument("--work", type=Path, default=Path("build") / "sweep")
    arguments = parser.parse_args()
    sides = Sides(arguments)
    with house(
        1, fsync=False, settings={"admin_key": SecretStr(ADMIN_KEY), "threads": 1}
    ) as running:
        bench = Bench(running, arguments)
        scratch = [
            sides.kept(f"scratch-{density}", lambda density=density: bench.job(density))
            for density in arguments.densities
        ]
        name = "front-" + "-".join(map(str, arguments.densities))
        front = sides.kept(name, lambda: bench.sweep("front", bench.grid()))
        goal = around = None
        if arguments.goal is not None:
            goal = sides.kept(f"goal-{arguments.goal}", lambda: bench.sweep("goal", bench.goal()))
            around = sides.kept(
                f"around-{arguments.goal}", lambda: bench.sweep("around", bench.around(goal))
            )
    print_result(
        figures(scratch, front)
        | (goal_figures(scratch, goal, around, arguments.goal) if goal and around else {})
    )


class Sides:
    """The sides of one setting, each of which is measured once and kept."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        own = ("work", "densities", "goal", "trials")
        settings = {name: value for name, value in vars(arguments).items() if name not in own}
        name = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
        self._folder = arguments.work / name
        self._folder.mkdir(parents=True, exist_ok=True)
        say(f"what is finished is kept in {self._folder}")

    def kept(self, name: str, measure: Any) -> Side:
        """A side as it was measured before, or now."""
        path = self._folder / f"{name}.json"
        if not path.exists():
            measured = measure()
            path.write_text(json.dumps(measured, indent=1) + "\n")
        side: Side = json.loads(path.read_text())
        say(f"{name}: {side['cpu_s']:.1f} s of CPU, {side['wall_s']:.1f} s")
        for point in side["points"]:
            say(f"  {point['point']}: {point['robust']:.3f} robust, {point['bytes']:,} bytes")
        return side


class Bench:
    """The running service, and what it is asked."""

    def __init__(self, running: House, arguments: argparse.Namespace) -> None:
        self._running, self._arguments = running, arguments
        self._admin = self._client(ADMIN_KEY)
        self._files = _uploads(arguments.train_images)

    def spec(self, **target: Any) -> dict[str, Any]:
        """The spec of every job, with this target."""
        arguments = self._arguments
        return {
            "method": "al0",
            "target": {"bits": arguments.bits} | target,
            "threat": {"norm": "linf", "epsilon": "76/255", "steps": arguments.steps},
            "training": {"preset": arguments.preset, "batch_size": arguments.batch_size},
            "evaluation": {
                "level": arguments.level,
                "max_images": arguments.images,
                "pgd_steps": arguments.pgd_steps,
                "curve_images": 50,
                "speed": False,
            }
            | ({"attacks": arguments.attacks} if arguments.attacks else {}),
        }

    def grid(self) -> dict[str, Any]:
        """What a sweep of the densities asks for."""
        return {"grid": {"densities": self._arguments.densities}, "spec": self.spec()}

    def goal(self) -> dict[str, Any]:
        """What a sweep towards the floor asks for."""
        goal = {"robust_accuracy": self._arguments.goal}
        return {"goal": goal, "trials": self._arguments.trials, "spec": self.spec()}

    def job(self, density: float) -> Side:
        """A job from scratch, of a tenant that has nothing to share."""
        with self._measured(f"scratch-{str(density).replace('.', '-')}") as (http, ids, side):
            new = ids | self.spec(density=density)
            job = _followed(http, _answer(http.post("/jobs", json=new)), "/jobs")
            side["points"] = [_point(http, job, {"density": density})]
        return side

    def sweep(self, name: str, asked: Mapping[str, Any]) -> Side:
        """A sweep, of a tenant of its own."""
        with self._measured(name) as (http, ids, side):
            made = _answer(http.post("/sweeps", json=ids | dict(asked) | {"max_parallel": 1}))
            sweep = _followed(http, made, "/sweeps")
            trials = [each for each in sweep["trials"] if each["state"] == "succeeded"]
            side["points"] = [
                _point(http, _answer(http.get(each["links"]["job"])), each["point"])
                for each in trials
            ]
            side["best"], side["message"] = sweep["best"], sweep["message"]
            side["indices"] = [each["index"] for each in trials]
        return side

    def around(self, goal: Side) -> dict[str, Any]:
        """What a sweep of all densities about a goal's answer asks for, on validation images.

        Its first densities lead there, as the goal's own did.
        """
        answer = _best(goal)
        if answer is None:
            raise SystemExit(f"nothing holds the floor: {goal['message']}")
        level = level_of(answer["point"]["target.density"])
        led = [
            density
            for point in goal["points"]
            if (density := point["point"]["target.density"]) > density_at(level - _AROUND)
        ]
        near = [density_at(level + step) for step in range(-_AROUND, _AROUND + 1)]
        spec = self.spec()
        spec["evaluation"]["split"] = "validation"
        densities = sorted({*led, *near}, reverse=True)
        return {"grid": {"densities": densities}, "spec": spec}

    @contextmanager
    def _measured(self, tenant: str) -> Iterator[tuple[httpx.Client, dict[str, str], Side]]:
        """Lend a client of the tenant and the ids of its uploads, and measure what runs there."""
        new = {"tenant": f"{tenant}-{os.getpid()}", "scopes": ["jobs:read", "jobs:write"]}
        http = self._client(_answer(self._admin.post("/keys", json=new))["key"])
        ids = {}
        model, dataset = self._files
        data = {"architecture": "lenet"}
        for kind, content, fields in (("model", model, data), ("dataset", dataset, {})):
            sent = http.post(f"/{kind}s", files={"file": (kind, content)}, data=fields)
            ids[f"{kind}_id"] = _answer(sent)["id"]
        side: Side = {}
        began = time.monotonic()
        with children_s(self._running.parts["worker-1"]) as cpu_s:
            yield http, ids, side
        side |= {"cpu_s": cpu_s(), "wall_s": time.monotonic() - began}

    def _client(self, key: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Client(base_url=self._running.url, headers=headers, timeout=120)


@contextmanager
def children_s(worker: Any) -> Iterator[Any]:
    """Measure the CPU seconds of all children that a worker has meanwhile, with their own.

    Yields a function that returns them once the context has ended.
    """
    seen: dict[tuple[int, float], list[float]] = {}
    done = threading.Event()

    def sample() -> None:
        for child in worker.children():
            with suppress(psutil.Error):
                spent = _spent(child)
                first_last = seen.setdefault((child.pid, child.create_time()), [spent, spent])
                first_last[1] = max(first_last[1], spent)

    def watch() -> None:
        while not done.wait(_SAMPLE_S):
            sample()

    sample()
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield lambda: sum(last - first for first, last in seen.values())
    finally:
        done.set()
        thread.join()
        sample()


def _spent(process: psutil.Process) -> float:
    """The CPU seconds of a process and of all that it has started."""
    times = process.cpu_times()
    spent = times.user + times.system + times.children_user + times.children_system
    for child in process.children(recursive=True):
        with suppress(psutil.Error):
            own = child.cpu_times()
            spent += own.user + own.system
    return float(spent)


def _uploads(train_images: int) -> tuple[bytes, bytes]:
    """A LeNet of random weights, and MNIST with so many training images."""
    torch.manual_seed(0)
    model = save(build("lenet", 10).state_dict())
    with np.load(unpacked("mnist")) as whole:
        arrays = {name: whole[name] for name in whole}
    for name in ("x_train", "y_train"):
        arrays[name] = arrays[name][:train_images]
    path = Path(tempfile.gettempdir()) / f"mnist-{train_images}-{os.getpid()}.npz"
    np.savez(path, **arrays)
    content = path.read_bytes()
    path.unlink()
    return model, content


def _answer(response: httpx.Response) -> dict[str, Any]:
    if not response.is_success:
        raise SystemExit(f"{response.request.method} {response.request.url}: {response.text}")
    document: dict[str, Any] = response.json()
    return document


def _followed(http: httpx.Client, made: dict[str, Any], path: str) -> dict[str, Any]:
    """What was made, once it has ended; its progress is said."""
    told = None
    while True:
        now = _answer(http.get(f"{path}/{made['id']}"))
        if now["state"] in _ENDED:
            break
        doing = now.get("stage") or now.get("counts")
        if doing != told:
            say(f"  {made['id'][:12]} {now['state']} {now['progress']:.0%} {doing}")
            told = doing
        time.sleep(_POLL_S)
    if now["state"] != "succeeded":
        raise SystemExit(f"{now['id']} {now['state']}: {now.get('error') or now.get('message')}")
    return now


def _point(http: httpx.Client, job: dict[str, Any], point: Any) -> Point:
    """What a job's report says of its compressed network."""
    report = _answer(http.get(f"/jobs/{job['id']}/report", headers={"Accept": "application/json"}))
    robust = report["after"]["robust"]
    return {
        "point": point,
        "clean": report["after"]["clean"]["accuracy"],
        "robust": robust["accuracy"],
        "low": robust["low"],
        "high": robust["high"],
        "bytes": job["headline"]["file_bytes"],
        "nonzeros": job["headline"]["nonzeros"],
        "seconds": job["headline"]["seconds"],
        "start_from": job["start_from"],
        "reused": [each["stage"] for each in report["reused"]],
    }


def figures(scratch: list[Side], front: Side) -> dict[str, Any]:
    """What the front's side and that of jobs from scratch say of each other."""
    one_job = statistics.mean(side["cpu_s"] for side in scratch)
    alone = [side["points"][0] for side in scratch]
    # A sweep lists its trials in the order of its grid.
    pairs = list(zip(alone, front["points"], strict=True))
    losses = [before["robust"] - after["robust"] for before, after in pairs]
    return {
        "front_cost_ratio": front["cpu_s"] / one_job,
        "front_accuracy_loss": statistics.mean(losses),
        "front_largest_loss": max(losses),
        "front_within_interval": sum(a["low"] <= b["robust"] for a, b in pairs),
        "points": len(pairs),
        "job_cpu_s": one_job,
        "front_cpu_s": front["cpu_s"],
    }


def goal_figures(scratch: list[Side], goal: Side, around: Side, floor: float) -> dict[str, Any]:
    """What the goal's side says beside jobs from scratch and the grid about its answer."""
    one_job = statistics.mean(side["cpu_s"] for side in scratch)
    holding = [each["bytes"] for each in around["points"] if each["low"] >= floor]
    best = _best(goal)
    return {
        "goal_cost_ratio": goal["cpu_s"] / one_job,
        "goal_bytes_ratio": best["bytes"] / min(holding) if best and holding else None,
        "goal_trials": len(goal["points"]),
        "around_points": len(around["points"]),
        "goal_message": goal["message"],
    }


def _best(goal: Side) -> Point | None:
    """The answer of a goal, None if it has none."""
    if goal["best"] is None:
        return None
    best: Point = goal["points"][goal["indices"].index(goal["best"])]
    return best


if __name__ == "__main__":
    main()
