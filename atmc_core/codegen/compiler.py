"""Compiles a C file with the system's compiler and runs it."""

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atmc_core.codegen import run_library

#: The options of all compilations.
OPTIONS = ("-O3", "-march=native", "-std=c99")
# How long a few images may take, in seconds.
_RUN_S = 60.0


class NoCompiler(Exception):
    """The system has no C compiler, it takes too long, or what it makes may not be loaded."""


class Compiled:
    """A compiled classifier.

    Args:
        library: the shared library's file.
        classes: the number of classes.
        name: the function's name.
    """

    def __init__(self, library: Path, classes: int, name: str = "atmc_model") -> None:
        self.library, self.classes, self.name = library, classes, name

    def __call__(self, images: Tensor) -> Tensor:
        """The logits ``[N, classes]`` of images float32 ``[N, C, H, W]`` in [0, 1].

        They are computed in a process of their own.

        Raises:
            NoCompiler: if the library cannot be loaded, as from a folder mounted ``noexec``.
            RuntimeError: if that process does not end well.
        """
        with TemporaryDirectory() as folder:
            given, made = Path(folder) / "images.npy", Path(folder) / "logits.npy"
            np.save(given, images.numpy())
            script, numbers = str(run_library.__file__), str(self.classes)
            arguments = [str(self.library), self.name, str(given), numbers, str(made)]
            command = [sys.executable, "-I", script, *arguments]
            try:
                done = subprocess.run(
                    command, capture_output=True, text=True, timeout=_RUN_S, check=False
                )
            except subprocess.TimeoutExpired as error:
                raise NoCompiler(f"what it makes takes longer than {_RUN_S:g} s") from error
            if done.returncode == run_library.NOT_LOADED:
                raise NoCompiler(f"what cc makes cannot be loaded here: {done.stderr.strip()}")
            if done.returncode:
                raise RuntimeError(f"the compiled network ends with status {done.returncode}")
            return torch.from_numpy(np.load(made))

    def bound(self, image: NDArray[np.float32]) -> Callable[[], None]:
        """A function that computes the logits of one image, ``[C, H, W]``, in this process.

        It is for timing: it returns nothing, and all that is done for Python is done before.
        """
        function = getattr(ctypes.CDLL(str(self.library)), self.name)
        function.restype = None
        kept = (np.ascontiguousarray(image), np.empty(self.classes, np.float32))
        pointers = [each.ctypes.data_as(ctypes.c_void_p) for each in kept]

        def run(kept: object = kept) -> None:
            function(*pointers)

        return run


def compile_c(source: Path, library: Path, *options: str, timeout_s: float = 120.0) -> Path:
    """Compile a C file to a shared library.

    Args:
        source: the file.
        library: the file to write.
        options: further options.
        timeout_s: how long it may take, in seconds.

    Raises:
        NoCompiler: if there is no compiler, or it takes too long.
        RuntimeError: with what the compiler says, if it does not take the file.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise NoCompiler("there is no C compiler (cc) here")
    command = [compiler, *OPTIONS, *options, "-shared", "-fPIC", str(source), "-o", str(library)]
    try:
        done = subprocess.run(
            [*command, "-lm"], capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise NoCompiler(f"cc took longer than {timeout_s:g} s") from error
    if done.returncode:
        raise RuntimeError(f"cc refuses the file: {done.stderr[:2000]}")
    return library
