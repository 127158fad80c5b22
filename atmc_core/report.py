"""The report and the headline of a job, from what its stages left and the decoded artifact."""

import json
from pathlib import Path
from typing import Any

from atmc_core.artifact import CompressedModel
from atmc_core.config import JobSpec
from atmc_core.pipeline import Carry
from atmc_core.schema import to_json

REPORT_VERSION = 1


def headline(result: CompressedModel, path: Path, dense_bytes: int, carry: Carry) -> dict[str, Any]:
    """The figures by which a job is judged; sizes in bytes, ratios to the dense float32 network.

    Args:
        result: the decoded artifact.
        path: its file.
        dense_bytes: size of the dense float32 state dict as a safetensors file.
    """
    figures: dict[str, Any] = {
        f"{name}_accuracy_{when}": carry[when][name]["accuracy"]
        for name in ("clean", "fgsm", "pgd", "robust")
        for when in ("before", "after")
    }
    u, v, c = result.nonzeros()
    distinct = result.distinct_values()
    file_bytes = path.stat().st_size
    return figures | {
        "k": result.k,
        "nonzeros": u + v + c,
        "nonzeros_u": u,
        "nonzeros_v": v,
        "nonzeros_c": c,
        "bits": result.bits,
        "max_distinct_values": max(max(counts) for counts in distinct.values()),
        "dense_bytes": dense_bytes,
        "file_bytes": file_bytes,
        "file_ratio": file_bytes / dense_bytes,
        "nominal_ratio": result.nominal_ratio(),
        "seconds": carry["seconds"],
    }


def write_report(
    path: Path,
    *,
    spec: JobSpec,
    result: CompressedModel,
    headline: dict[str, Any],
    carry: Carry,
    images: dict[str, int],
    environment: dict[str, Any],
) -> None:
    """Write ``report.json``: the spec with its defaults, both evaluations, and every layer."""
    report = {
        "version": REPORT_VERSION,
        "spec": to_json(spec),
        "architecture": result.architecture,
        "num_classes": result.num_classes,
        "images": images,
        "headline": headline,
        "before": carry["before"],
        "after": carry["after"],
        "layers": layer_table(result),
        "environment": environment,
    }
    path.write_text(json.dumps(report, indent=2) + "\n")


def layer_table(result: CompressedModel) -> list[dict[str, Any]]:
    """For every weight: its shape, and the non-zeros and distinct values of U, V and C."""
    distinct = result.distinct_values()
    return [
        {
            "weight": name,
            "shape": list(factors.view.shape),
            "groups": factors.view.groups,
            "weights": factors.c.numel(),
            "nonzeros": {
                factor: int(tensor.count_nonzero())
                for factor, tensor in zip("uvc", factors.tensors, strict=True)
            },
            "distinct_values": dict(zip("uvc", distinct[name], strict=True)),
        }
        for name, factors in result.factors.items()
    ]
