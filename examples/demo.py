"""`make demo`: train a small classifier, compress it through the service, check the result.

The demo uses the service as a user does, through the `atmc` command line, in processes of its own.
The last line of its output is a JSON object with the figures.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any

from examples.digits import ARCHITECTURE, save_digits, train_classifier

_POLL_S = 0.1
ATMC = (str(Path(sys.executable).with_name("atmc")),)
SPEC = {
    "method": "atmc",
    "target": {"density": 0.1, "bits": 4},
    "threat": {"norm": "linf", "epsilon": 0.1},
    "training": {
        "robust_epochs": 15,
        "compression_epochs": 20,
        "finish_epochs": 8,
    },
}
# The figures of the job in the last line of the output.
FIGURES = (
    "clean_accuracy_before",
    "clean_accuracy_after",
    "fgsm_accuracy_before",
    "fgsm_accuracy_after",
    "pgd_accuracy_before",
    "pgd_accuracy_after",
    "nonzeros",
    "k",
    "max_distinct_values",
    "bits",
    "file_bytes",
    "file_ratio",
    "nominal_ratio",
)


class DemoFailed(Exception):
    """A part of the demo failed; the message says which."""


def main() -> int:
    """Run the demo; returns the exit status, 0 if everything went well."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description=__doc__)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep all files in this folder")
    keep: Path | None = parser.parse_args().keep
    # Python handles SIGINT by default, but not if the demo was started with SIGINT ignored, as
    # shells do in the background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    try:
        with nullcontext(keep) if keep else tempfile.TemporaryDirectory() as folder:
            figures = run(Path(folder).resolve())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except DemoFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(figures))
    return 0


def run(folder: Path) -> dict[str, Any]:
    """Run the demo with all files in `folder`; returns the figures of the last line.

    Raises `DemoFailed`.
    """
    began = time.monotonic()
    model, dataset = folder / "digits.safetensors", folder / "digits.npz"
    _say("1. training a small conv net on scikit-learn's handwritten digits")
    save_digits(dataset)
    train_classifier(dataset, model)

    _say("2. starting the service: atmc serve")
    with running_service(folder) as url:
        _say(f"3. sending model, data and spec in one request: atmc submit --server {url}")
        job = submit(url, model, dataset, folder / "spec.json")
        _say("4. before and after: atmc show")
        _atmc(url, "show", job["id"])
        _atmc(url, "show", job["id"], "--layers")
        _say("5. fetching the compressed model and testing it in a fresh process: atmc download")
        _atmc(url, "download", job["id"], "--output", str(folder / "compressed"))
        check(folder / "compressed" / "model.atmc", dataset, job["headline"])
    figures = {name: job["headline"][name] for name in FIGURES}
    return figures | {"seconds": round(time.monotonic() - began, 1)}


@contextmanager
def running_service(folder: Path) -> Iterator[str]:
    """Run `atmc serve` on a free port, with its data in `folder/service`; yields its URL.

    Raises `DemoFailed` if it does not start.
    """
    log = folder / "service.log"
    data = folder / "service"
    command = (*ATMC, "serve", "--port", "0", "--data-dir", str(data))
    # For a network this small, a second thread costs more time than it saves.
    environment = os.environ | {"ATMC_THREADS": "1"}
    with log.open("wb") as output:
        # The service gets a session of its own, so that Ctrl-C reaches this process alone, which
        # then ends the service.
        service = subprocess.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield _url_when_ready(data / "service.json", service, log)
    finally:
        service.terminate()
        service.wait()


def _url_when_ready(announced: Path, service: subprocess.Popen[bytes], log: Path) -> str:
    while service.poll() is None:
        if announced.exists():
            found = json.loads(announced.read_text())
            if found["pid"] == service.pid:
                return str(found["url"])
        time.sleep(_POLL_S)
    raise DemoFailed(f"the service did not start:\n{log.read_text()}")


def submit(url: str, model: Path, dataset: Path, spec: Path) -> dict[str, Any]:
    """Submit a job and wait for its end; returns the job. Raises `DemoFailed` if it fails."""
    spec.write_text(json.dumps(SPEC, indent=2))
    command = (*ATMC, "--server", url, "submit", "--architecture", ARCHITECTURE, "--json")
    files = ("--model", str(model), "--data", str(dataset), "--spec", str(spec))
    done = subprocess.run((*command, *files), stdout=subprocess.PIPE, text=True)
    if not done.stdout:
        raise DemoFailed("atmc submit was refused")
    job: dict[str, Any] = json.loads(done.stdout)
    if job["error"]:
        raise DemoFailed(f"the job failed: {job['error']['code']}: {job['error']['message']}")
    if job["state"] != "succeeded":
        raise DemoFailed(f"the job was {job['state']}")
    return job


def check(model: Path, dataset: Path, headline: dict[str, Any]) -> None:
    """Compare the downloaded model's accuracy, in a fresh process, with the reported one.

    Raises `DemoFailed` if any digit differs.
    """
    command = (sys.executable, "-m", "examples.check_artifact", str(model), str(dataset))
    fresh = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if fresh.returncode:
        raise DemoFailed("the downloaded model cannot be loaded")
    found, reported = json.loads(fresh.stdout)["clean_accuracy"], headline["clean_accuracy_after"]
    if found != reported:
        raise DemoFailed(f"the downloaded model's accuracy is {found}, reported was {reported}")
    if model.stat().st_size != headline["file_bytes"]:
        raise DemoFailed(f"the downloaded model has {model.stat().st_size} bytes, not as reported")
    _say(f"   clean accuracy {found} in a fresh process, as reported")


def _atmc(url: str, *arguments: str) -> None:
    code = subprocess.run((*ATMC, "--server", url, *arguments)).returncode
    if code:
        raise DemoFailed(f"atmc {arguments[0]} ended with exit code {code}")


def _say(line: str) -> None:
    print(line, flush=True)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
