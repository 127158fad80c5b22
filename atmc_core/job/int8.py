"""Makes a network in int8 of the compressed one, and offers it if it loses little."""

import copy
from typing import Any

from torch import Tensor

from atmc_core.artifact.export import ONNX_FILE
from atmc_core.data import Split
from atmc_core.evaluation.quantized import compare
from atmc_core.job.inputs import Inputs
from atmc_core.networks.classifier import Classifier, frozen_model
from atmc_core.networks.onnx.quantized import quantize
from atmc_core.networks.onnx.runtime import runner
from atmc_core.report.figures import share
from atmc_spec.target import INT8_DROP

INT8_FILE = "model.int8.onnx"
# How many images of the validation split the ranges are found on, at most.
_CALIBRATED = 256


def write_int8(inputs: Inputs, after: Classifier) -> dict[str, Any] | None:
    """Write ``model.int8.onnx`` beside ``model.onnx`` and evaluate it, if the spec asks for it.

    The file is kept if its clean accuracy is at most as far below the float network's as the spec
    allows, and it fails on at most that share of the images on which the float network stands under
    all attacks.

    Args:
        inputs: the job's inputs; ``model.onnx`` is in the folder of results.
        after: the compressed classifier, on the CPU.

    Returns:
        The report's part on it; None if the spec does not ask for it.
    """
    if not inputs.target.int8:
        return None
    limit = INT8_DROP if inputs.target.int8_drop is None else inputs.target.int8_drop
    source, path = inputs.results / ONNX_FILE, inputs.results / INT8_FILE
    report: dict[str, Any] = {"offered": False, "limit": limit, "figures": None}
    if not source.exists():
        return report | {"reason": f"there is no {ONNX_FILE}"}
    images, _ = _first(inputs.data.val, _CALIBRATED)
    try:
        quantize(source, path, images.cpu())
    except RuntimeError as error:
        return report | {"reason": str(error)}
    spec = inputs.spec
    network = frozen_model(copy.deepcopy(after).to(inputs.device))
    found = compare(
        network, runner(path), inputs.evaluated, spec.threat, spec.evaluation, inputs.report_seed
    )
    count = len(found.clean)
    names = ("clean", "transferred", "square", "robust", "float_clean", "float_robust")
    shares = {name: share(int(getattr(found, name).sum()), count) for name in names}
    lost = {
        "clean accuracy": shares["float_clean"]["accuracy"] - shares["clean"]["accuracy"],
        "images that the float network withstands": found.fallen.double().mean().item(),
    }
    missed = [f"{share:.4f} of {name}" for name, share in lost.items() if share > limit]
    figures = {"fallen": int(found.fallen.sum()), "square_queries": found.queries}
    report["figures"] = shares | figures | {"bytes": path.stat().st_size}
    if missed:
        path.unlink()
        return report | {"reason": f"it loses {' and '.join(missed)}, and may lose {limit:g}"}
    return report | {"offered": True, "reason": ""}


def _first(split: Split, count: int) -> tuple[Tensor, Tensor]:
    return split.batch(slice(0, min(count, len(split))))
