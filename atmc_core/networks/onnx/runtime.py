"""Running an ONNX file with onnxruntime, to hold our networks against it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from atmc_core.errors import InvalidInput


def runner(path: Path) -> Callable[[Tensor], Tensor]:
    """The file as a function of images float32 ``[N, C, H, W]`` on the CPU.

    Raises:
        InvalidInput: ``malformed_model``, if onnxruntime refuses it, then or when it runs.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    with _refusals():
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        (given,) = session.get_inputs()
        batch = given.shape[0] if isinstance(given.shape[0], int) else None
    dtype = np.float16 if given.type == "tensor(float16)" else np.float32

    def run(images: Tensor) -> Tensor:
        parts = [images] if batch is None else list(torch.split(images, batch))
        with _refusals():
            made = [
                session.run(None, {given.name: part.numpy().astype(dtype)})[0] for part in parts
            ]
        return torch.from_numpy(np.concatenate(made).astype(np.float32))

    return run


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # It has a dozen exception types of its own, of no common base but this.
        raise InvalidInput(
            "malformed_model", f"onnxruntime refuses it: {str(error)[:500]}", "model"
        ) from error
