"""Runs an ONNX file with onnxruntime, to compare networks with it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from atmc_core.errors import InvalidInput

# The level at which onnxruntime logs fatal errors only.
_FATAL_ONLY = 4
# Its words where it has no layer for a type of numbers.
_TYPES_WITHOUT_LAYERS = ("NOT_IMPLEMENTED", "tensor(bfloat16)", "tensor(double)")
# The types of images, by onnxruntime's names.
_DTYPES = {"tensor(float16)": np.float16, "tensor(double)": np.float64}


def runner(
    file: Path | bytes, output: str | None = None, channels_last: bool = False
) -> Callable[[Tensor], Tensor]:
    """Open an ONNX file as a function.

    Args:
        file: the file, or its content.
        output: the name of the output; the first one by default.
        channels_last: whether the file takes images ``[N, H, W, C]``.

    Returns:
        A function from images float32 ``[N, C, H, W]`` on the CPU to outputs float32. If the file
        fixes the size of the batch, N must be a multiple of it.

    Raises:
        InvalidInput: ``malformed_model`` if onnxruntime refuses the file; the function raises it,
            too.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = _FATAL_ONLY
    with _refusals(file):
        session = onnxruntime.InferenceSession(
            file if isinstance(file, bytes) else str(file),
            options,
            providers=["CPUExecutionProvider"],
        )
        (given,) = session.get_inputs()
        batch = given.shape[0] if given.shape and isinstance(given.shape[0], int) else None
    names = None if output is None else [output]
    dtype = _DTYPES.get(given.type, np.float32)

    def run(images: Tensor) -> Tensor:
        if channels_last:
            images = images.permute(0, 2, 3, 1).contiguous()
        parts = [images] if batch is None else list(torch.split(images, batch))
        with _refusals(file):
            made = [
                session.run(names, {given.name: part.numpy().astype(dtype)})[0] for part in parts
            ]
        return torch.from_numpy(np.concatenate(made).astype(np.float32))

    return run


@contextmanager
def _refusals(file: Path | bytes) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # onnxruntime has a dozen exception types with no other common base.
        reason = str(error)
        if isinstance(file, Path):
            # Where the file lies on this machine is nobody's business.
            reason = reason.replace(str(file), "the file")
        reason = reason[:500]
        if any(word in reason for word in _TYPES_WITHOUT_LAYERS):
            reason += (
                " (on a CPU it computes layers in float32 and float16 only: export the network in "
                "float32)"
            )
        raise InvalidInput(
            "malformed_model", f"onnxruntime refuses it: {reason}", "model"
        ) from error
