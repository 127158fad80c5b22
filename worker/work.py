"""The work of a child: the job in its folder, its outcome, and the names of its crashes."""

import json
import math
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import torch

from atmc_core.determinism import compute_repeatably
from atmc_core.errors import InvalidInput
from atmc_core.job.denser import DenserInput
from atmc_core.job.methods import all_specs
from atmc_core.job.run import run
from atmc_core.networks.classifier import Normalization
from atmc_core.networks.upload import ModelInput
from atmc_core.training import distributed
from atmc_core.training.distributed import is_launched
from atmc_spec import read_spec
from worker.folder import RunFolder, write_json
from worker.process import end_with_parent
from worker.shelf import FolderShelf
from worker.together import PARENT

__all__ = ["is_launched", "run_in"]

# Longer messages of exceptions are cut off.
_LONGEST_MESSAGE = 2000


def run_in(folder: RunFolder, document: dict[str, Any]) -> None:
    """Run the folder's job, whose document this is, and write its outcome.

    What it raises is a crash; known kinds of crashes are written to `crash.json`.
    """
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


def _crash(folder: RunFolder, code: str, error: BaseException) -> None:
    write_json(folder.crash, {"code": code, "message": str(error)[:_LONGEST_MESSAGE]})


def _outcome(folder: RunFolder, document: dict[str, Any]) -> dict[str, Any]:
    if distributed.is_launched():
        # torchrun starts each process in a session of its own, so killing ours does not reach it.
        end_with_parent(int(os.environ[PARENT]))
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
            denser=_denser(folder, document.get("start")),
            shelf=_shelf(folder, document),
        )


def _denser(folder: RunFolder, document: dict[str, Any] | None) -> DenserInput | None:
    if document is None:
        return None
    return DenserInput(folder.path / document["path"], document["sha256"], document["job_id"])


def _shelf(folder: RunFolder, document: dict[str, Any]) -> FolderShelf | None:
    """The shelf that a supervisor serves; a child that was started by hand has none."""
    if not document.get("products"):
        return None
    files = {name: document[name]["sha256"] for name in ("model", "dataset")}
    return FolderShelf(folder.products, document["job_id"], files)


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
