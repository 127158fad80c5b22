"""Raises the operator set of old ONNX files to the oldest that the importer knows."""

from onnx import ModelProto, checker, version_converter

from atmc_core.networks.onnx.refusals import malformed

#: The versions of ONNX's operator set that are known.
OPSETS = range(9, 24)
# The versions that onnx's own converter is asked to raise.
_RAISED = range(7, 9)
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
    if versions[0] not in OPSETS and versions[0] not in _RAISED:
        raise malformed(
            f"opset {versions[0]}; {_RAISED[0]} to {OPSETS[-1]} are known: export again with "
            "torch.onnx.export(..., opset_version=18), or convert it with "
            "onnx.version_converter.convert_version(model, 18)"
        )
    return int(versions[0])


def is_raised(opset: int) -> bool:
    """Whether a file with this operator set has to be converted before it is read."""
    return opset in _RAISED


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
        return version_converter.convert_version(model, OPSETS[0])
    except _FAILURES as error:
        reason = str(error).strip().split("\n")[0][:300]
        raise malformed(
            f"its old operator set cannot be raised to {OPSETS[0]} ({reason}): export again with "
            "torch.onnx.export(..., opset_version=18)"
        ) from error
