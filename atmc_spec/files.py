"""What uploaded files may be, where the API can tell it from a header and the job has to agree."""

#: The versions of ONNX's operator set that come in.
ONNX_OPSETS = range(7, 24)


def opset_reason(version: int) -> str:
    """Why an ONNX file of another version is refused, and what to do."""
    return (
        f"opset {version}; {ONNX_OPSETS[0]} to {ONNX_OPSETS[-1]} are known: export again with "
        "torch.onnx.export(..., opset_version=18), or convert it with "
        "onnx.version_converter.convert_version(model, 18)"
    )
