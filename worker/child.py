"""The process that does the work: `python -m worker.child FOLDER`.

It uses one folder (docs/interfaces/job-folder.md) and nothing else: no database, no store, no
secrets. So it can be run by hand on any machine: put `job.json` and the inputs into a folder, and
run the command. Exit status 0 means that `outcome.json` was written. Any other status is a crash;
the reason is on standard error and, for known kinds of crashes, in `crash.json`.

The supervisor uses `--supervised`. The child then loads the method, gives up the network, lowers
its limits, and waits for a line with the folder on standard input. When standard input closes, the
supervisor has ended, and the child ends itself and all processes that it started. Without the
option, standard input is not used.
"""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from atmc_core.determinism import compute_repeatably
from atmc_core.errors import InvalidInput
from atmc_core.job.methods import all_specs
from atmc_core.job.run import run
from atmc_core.networks.classifier import Normalization
from atmc_core.networks.upload import ModelInput
from atmc_core.training import distributed
from atmc_spec import read_spec
from worker import sandbox
from worker.folder import RunFolder, write_json
from worker.process import end_with_parent

# Longer messages of exceptions are cut off.
_LONGEST_MESSAGE = 2000


def main() -> None:
    """Run the job in the folder and write its outcome."""
    parser = argparse.ArgumentParser(prog="python -m worker.child", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--supervised", type=int, metavar="MAX_FILE_BYTES")
    arguments = parser.parse_args()
    if arguments.supervised is not None:
        folder = _wait_for_folder(sandbox.enter(max_file_bytes=arguments.supervised))
    elif arguments.folder is not None:
        folder = RunFolder(arguments.folder)
    else:
        parser.error("a folder is needed")
    document = json.loads(folder.job.read_text())
    if document["processes"] > 1 and not distributed.is_launched():
        sys.exit(_launch(folder, document["processes"]))
    try:
        outcome = _outcome(folder, document)
    except (MemoryError, torch.OutOfMemoryError) as error:
        _crash(folder, "out_of_memory", error)
        raise
    except RuntimeError as error:
        if "CUDA error" in str(error) or "NCCL error" in str(error):
            _crash(folder, "cuda_error", error)
        raise
    # Any of several processes may fail and say so. A success is written by the first one alone.
    if outcome["status"] == "failed" or distributed.is_first():
        write_json(folder.outcome, outcome)


def _launch(folder: RunFolder, processes: int) -> int:
    """Run the job in several processes with a GPU each; they communicate over the loopback."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--local-addr=127.0.0.1", f"--nproc-per-node={processes}"]
    command += ["-m", "worker.child", str(folder.path)]
    loopback = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    return subprocess.run(command, env=os.environ | loopback, stdin=subprocess.DEVNULL).returncode


def _crash(folder: RunFolder, code: str, error: BaseException) -> None:
    write_json(folder.crash, {"code": code, "message": str(error)[:_LONGEST_MESSAGE]})


def _wait_for_folder(said: str) -> RunFolder:
    """Wait for the supervisor to name a folder; from then on, output goes to the folder's log."""
    line = sys.stdin.buffer.readline()
    if not line:
        sys.exit(0)  # The supervisor has ended.
    folder = RunFolder(Path(os.fsdecode(line.rstrip(b"\n"))))
    log = os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(log, descriptor)
    os.close(log)
    print(said, flush=True)
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    return folder


def _end_with_supervisor() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    # This process leads the process group of all that it started, which must end with it.
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _outcome(folder: RunFolder, document: dict[str, Any]) -> dict[str, Any]:
    if distributed.is_launched():
        # torchrun starts each process in a session of its own, so killing ours does not reach it.
        end_with_parent()
    try:
        headline = _run(folder, document)
    except InvalidInput as error:
        return _failed(error.code, error.message, error.param)
    except FloatingPointError as error:
        # Another attempt would diverge in the same way, so the job fails at once.
        return _failed("training_diverged", str(error), "spec.training")
    return {"status": "succeeded", "headline": headline}


def _failed(code: str, message: str, param: str | None) -> dict[str, Any]:
    return {"status": "failed", "error": {"code": code, "message": message, "param": param}}


def _run(folder: RunFolder, document: dict[str, Any]) -> dict[str, Any]:
    if document["threads"] is not None:
        torch.set_num_threads(document["threads"])
    device = torch.device(document["device"])
    # On a CPU the artifact of a resumed job is, byte for byte, that of an undisturbed one. On a GPU
    # it is equal within a tolerance, because some kernels (pooling's, for example) are not
    # deterministic.
    compute_repeatably(device.type == "cpu")
    model = document["model"]
    with folder.events.open("a") as events, distributed.together(device) as own_device:
        return run(
            read_spec(document["spec"], all_specs()),
            ModelInput(
                folder.path / model["path"],
                model["architecture"],
                _normalization(model["normalization"]),
            ),
            folder.path / document["dataset"]["path"],
            folder.path,
            device=own_device,
            emit=_emitter(events.write, events.flush),
        )


def _normalization(document: dict[str, Any] | None) -> Normalization:
    if document is None:
        return Normalization()
    return Normalization(mean=tuple(document["mean"]), std=tuple(document["std"]))


def _emitter(
    write: Callable[[str], object], flush: Callable[[], None]
) -> Callable[[dict[str, Any]], None]:
    def emit(event: dict[str, Any]) -> None:
        line = {"time": datetime.now(UTC).isoformat()} | event
        write(json.dumps({name: _finite(value) for name, value in line.items()}) + "\n")
        flush()

    return emit


def _finite(value: object) -> object:
    """Return None for NaN and the infinities, which JSON does not have, and else the value."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


if __name__ == "__main__":
    main()
