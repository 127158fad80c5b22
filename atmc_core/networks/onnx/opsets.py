"""Raises the operator set of old ONNX files to the oldest that the importer knows."""

from onnx import ModelProto, checker, version_converter

from atmc_core.networks.onnx.refusals import malformed
from atmc_spec.files import ONNX_OPSETS, opset_reason

# The oldest version of ONNX's operator set that is read; onnx's own converter raises older ones.
_OLDEST_READ = 9
# What the converter cannot do ends in one of these; it is written in C++.
_FAILURES = (
    RuntimeError,
    ValueError,
    TypeError,
    checker.ValidationError,
    version_converter.ConvertError,
)


def opset_of(model: ModelProto) -> int:
    """The version of the operator set that a file uses.

    Raises:
        InvalidInput: ``malformed_model`` if it is none of those that come in.
    """
    versions = [each.version for each in model.opset_import if each.domain in ("", "ai.onnx")]
    if not versions:
        raise malformed("it imports no ONNX operator set")
    if versions[0] not in ONNX_OPSETS:
        raise malformed(opset_reason(versions[0]))
    return int(versions[0])


def is_raised(opset: int) -> bool:
    """Whether a file with this operator set has to be converted before it is read."""
    return opset < _OLDEST_READ


def raised(model: ModelProto) -> ModelProto:
    """The same network in the oldest operator set that is known.

    Args:
        model: a model whose nodes are in running order. onnx's checker looks at it first, since the
            converter takes for granted what the checker checks.

    Raises:
        InvalidInput: ``malformed_model`` if onnx cannot convert it.
    """
    try:
        checker.check_model(model)
        return version_converter.convert_version(model, _OLDEST_READ)
    except _FAILURES as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise malformed(
            f"its old operator set cannot be raised to {_OLDEST_READ} ({reason}): export again "
            "with torch.onnx.export(..., opset_version=18)"
        ) from error
