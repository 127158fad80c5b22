"""DeepCABAC (ISO/IEC 15938-17) of the ``nncodec`` package, where that is installed.

    pip install -c constraints.txt pybind11 && pip install --no-deps --no-build-isolation nncodec

Only its coder is loaded, which is compiled code; the package itself needs much that has nothing to
do with coding, and NumPy below 2.
"""

import importlib.machinery
import importlib.util
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The package's own default, and shorter unary parts for few values.
_UNARY_LENGTHS = (10, 4, 1)
# Rows after each other, and in blocks of 8 and 16 rows.
_SCAN_ORDERS = (0, 1, 2)


@cache
def coder() -> Any | None:
    """The compiled module, or None if ``nncodec`` is not installed."""
    spec = importlib.util.find_spec("nncodec")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0], "extensions")
    for suffix in importlib.machinery.EXTENSION_SUFFIXES:
        path = folder / f"deepCABAC{suffix}"
        if path.exists():
            loader = importlib.machinery.ExtensionFileLoader("deepCABAC", str(path))
            found = importlib.util.module_from_spec(
                importlib.machinery.ModuleSpec("deepCABAC", loader, origin=str(path))
            )
            loader.exec_module(found)
            return found
    return None


def coded_bytes(matrix: NDArray[np.int32]) -> int:
    """The bytes of a matrix of integers, by the settings that suit it best.

    Args:
        matrix: ``[rows, columns]``; zeros are the dropped entries.
    """
    settings = product(_UNARY_LENGTHS, (0, 1), _SCAN_ORDERS)
    return min(_encoded(matrix, *each) for each in settings)


def _encoded(matrix: NDArray[np.int32], unary: int, fitted: int, scan_order: int) -> int:
    module = coder()
    assert module is not None
    encoder = module.Encoder()
    encoder.initCtxModels(unary, fitted)
    rows = np.zeros(len(matrix), np.int32)
    # Without trellis quantisation, for which the integers would have to be chosen anew.
    encoder.encodeLayer(
        matrix, 0, scan_order, 0, 0, 0, rows, module.HdspMode.AlwaysOff, np.zeros(2, np.int8), 0, 0
    )
    return len(encoder.finish())
