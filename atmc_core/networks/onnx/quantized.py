"""An ONNX file in int8, by onnxruntime's own quantisation."""

import logging
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

# How many images are run at once to find the ranges of the results.
_BATCH = 64


def quantize(file: Path, into: Path, images: Tensor) -> None:
    """Write a classifier's ONNX file in int8: static, in the form QuantizeLinear, DequantizeLinear.

    Weights have a scale for each output channel, results one for each tensor; their ranges are
    the least and the largest value on some images.

    Args:
        file: the float32 file, whose batch is open.
        into: the file to write.
        images: float32 ``[N, C, H, W]`` in [0, 1], such as those of the validation split.

    Raises:
        RuntimeError: with the reason, if onnxruntime cannot quantise the file.
    """
    # Imported here because it needs the onnx package, which may be missing.
    import onnxruntime
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    name = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    name = name.get_inputs()[0].name

    class Batches(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[Tensor] = iter(torch.split(images, _BATCH))

        def get_next(self) -> dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.float32]]"] | None:
            batch = next(self.batches, None)
            return None if batch is None else {name: batch.numpy().astype(np.float32)}

    with TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        level = logging.getLogger().level
        logging.getLogger().setLevel(logging.ERROR)
        try:
            quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(into),
                Batches(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        except Exception as error:
            # onnxruntime raises exceptions of many types.
            into.unlink(missing_ok=True)
            reason = str(error).split("\n")[0][:300]
            raise RuntimeError(f"onnxruntime cannot quantise the file: {reason}") from error
        finally:
            logging.getLogger().setLevel(level)
