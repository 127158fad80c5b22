"""A child without torch: does what `spec` in job.json says.

It keeps to the protocol of docs/interfaces/job-folder.md.

`python stand_in.py`, the folder as a line on standard input. `spec["do"]` is one of the functions
below.
"""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

FOLDER = Path(sys.stdin.readline().rstrip("\n"))
LOG = (FOLDER / "child.log").open("ab")
os.dup2(LOG.fileno(), 1)
os.dup2(LOG.fileno(), 2)
JOB = json.loads((FOLDER / "job.json").read_text())
SPEC = JOB["spec"]


def emit(type: str, **fields: object) -> None:
    event = {"time": datetime.now(UTC).isoformat(), "type": type} | fields
    with (FOLDER / "events.jsonl").open("a") as file:
        file.write(json.dumps(event) + "\n")


def finish(outcome: dict[str, object]) -> None:
    (FOLDER / "outcome.tmp").write_text(json.dumps(outcome))
    (FOLDER / "outcome.tmp").rename(FOLDER / "outcome.json")


def fail(code: str, message: str, param: str) -> None:
    finish({"status": "failed", "error": {"code": code, "message": message, "param": param}})


def succeed() -> None:
    emit("stage", stage="validating", status="started")
    inputs = {path.name: path.read_text() for path in (FOLDER / "inputs").iterdir()}
    count()
    report = {"job": JOB, "inputs": inputs, "environment": dict(os.environ)}
    for name in SPEC.get("results", ["model.atmc", "report.json"]):
        content = "small"
        if name == "report.json":
            content = SPEC.get("report") or json.dumps(report)
        (FOLDER / "results" / name).write_text(content)
    for name in SPEC.get("links", []):
        (FOLDER / "results" / name).symlink_to(FOLDER / "job.json")
    finish({"status": "succeeded", "headline": SPEC["headline"]})


def count() -> None:
    """Train five epochs, from the checkpoint if there is one; die in `crash_at` unless resumed."""
    checkpoints = sorted((FOLDER / "checkpoints").glob("*.pt"))
    done = int(checkpoints[-1].read_text()) if checkpoints else 0
    if done:
        emit("resumed", stage="training", epoch=done)
    emit("stage", stage="training", status="started")
    for epoch in range(done + 1, 6):
        figures = {"epoch": epoch, "epochs": 5, "progress": epoch / 5, "eta_s": 5.0 - epoch}
        emit("progress", stage="training", **figures)
        aside = FOLDER / "checkpoints" / "aside"
        aside.write_text(str(epoch))
        aside.rename(FOLDER / "checkpoints" / f"{epoch:06d}.pt")
        if epoch == SPEC.get("crash_at") and not done:
            time.sleep(1)  # So that the checkpoint of this epoch is found.
            crash()


def share() -> None:
    """Ask for the product `key`; make it of `content`, in `make_s` seconds, where that is told.

    The headline says what was `got`. With `link` the product is a link to that file.
    """
    emit("stage", stage="validating", status="started")
    key, number = SPEC["key"], 0
    products = FOLDER / "products"

    def ask(refused: bool) -> dict[str, object]:
        nonlocal number
        aside = products / "aside"
        aside.write_text(json.dumps({"n": number, "stage": "training", "refused": refused}))
        aside.rename(products / f"{key}.ask")
        number += 1
        while True:
            answer = products / f"{key}.answer"
            told = json.loads(answer.read_text()) if answer.exists() else {"n": -1}
            if told["n"] == number - 1 and told["answer"] != "wait":
                return told
            if told.get("answer") == "wait":
                emit("metric", stage="training", epoch=0, waits_for=told["job_id"])
                time.sleep(0.2)
            time.sleep(0.02)

    told = ask(False)
    if SPEC.get("refuse"):
        told = ask(True)
    if told["answer"] == "take":
        taken = (products / f"{key}.taken").read_text()
        finish_with({"got": taken, "from": told["job_id"], "seconds": told["seconds"]})
        return
    emit("metric", stage="training", epoch=0, makes=key)
    time.sleep(SPEC.get("make_s", 0))
    (products / f"{key}.about").write_text(json.dumps({"stage": "training", "seconds": 2.5}))
    if SPEC.get("link"):
        (products / f"{key}.made").symlink_to(SPEC["link"])
    else:
        (products / "aside").write_text(SPEC["content"])
        (products / "aside").rename(products / f"{key}.made")
    time.sleep(SPEC.get("then_s", 0))
    finish_with({"got": None})


def finish_with(headline: dict[str, object]) -> None:
    (FOLDER / "results" / "report.json").write_text("{}")
    finish({"status": "succeeded", "headline": headline})


def refuse() -> None:
    emit("stage", stage="validating", status="started")
    fail("non_finite_weights", "conv1.weight has NaN", "conv1.weight")


def crash() -> None:
    print("out of luck", file=sys.stderr, flush=True)
    os.kill(os.getpid(), getattr(signal, SPEC.get("signal", "SIGKILL")))


def exit() -> None:
    sys.exit("that was all")


def babble() -> None:
    emit("stage", stage="validating", status="started")
    with (FOLDER / "events.jsonl").open("a") as file:
        file.write("not JSON\n")
    time.sleep(600)


def hang() -> None:
    """Go on for ever, with a grandchild, after one epoch with a checkpoint; `stubborn`: always."""
    if SPEC.get("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    grandchild = subprocess.Popen(["sleep", "600"])
    (FOLDER / "checkpoints" / "000001.pt").write_text("1")
    emit("metric", stage="training", epoch=1, pid=os.getpid(), grandchild=grandchild.pid)
    time.sleep(600)


def hoard() -> None:
    """Take ever more memory, in a process of its own."""
    script = "a = []\nwhile True: a.append(bytearray(2**24)); import time; time.sleep(0.01)"
    subprocess.run([sys.executable, "-c", script], check=False)


def sprawl() -> None:
    """Take ever more of the disk."""
    for number in range(10_000):
        (FOLDER / "inputs" / f"inflated-{number}").write_bytes(bytes(2**20))
        time.sleep(0.01)


def tell_why() -> None:
    (FOLDER / "crash.json").write_text(json.dumps({"code": SPEC["code"], "message": "it says"}))
    sys.exit(1)


if __name__ == "__main__":
    globals()[SPEC["do"]]()
