"""Prints the memory, in bytes, that a process needs to run a batch of images through an ONNX file.

It is run by its path, with the file and the shape of the batch, and imports nothing of ours: what
it prints is the peak of the resident memory above what the interpreter and onnxruntime take. These
have their peak when they are there, so the process need not forget it, which a sandbox forbids.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime

_STATUS = Path("/proc/self/status")


def _resident(name: str) -> int:
    """``VmRSS``, the memory now, or ``VmHWM``, its peak; in bytes."""
    (line,) = [each for each in _STATUS.read_text().splitlines() if each.startswith(name)]
    return 1024 * int(line.split()[1])


def main() -> None:
    file, *shape = sys.argv[1:]
    images = np.random.default_rng(0).random(tuple(map(int, shape)), np.float32)
    before = _resident("VmRSS")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    session.run(None, {session.get_inputs()[0].name: images})
    print(_resident("VmHWM") - before)


if __name__ == "__main__":
    main()
