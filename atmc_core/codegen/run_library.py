"""Runs a compiled classifier on images, in a process of its own, which a fault in it ends alone.

It is run by its path: LIBRARY FUNCTION IMAGES.npy CLASSES LOGITS.npy, and imports nothing of ours.
"""

import ctypes
import sys

import numpy as np

#: The exit status if the library cannot be loaded.
NOT_LOADED = 3


def main() -> None:
    library, name, images, classes, logits = sys.argv[1:]
    try:
        function = getattr(ctypes.CDLL(library), name)
    except OSError as error:
        print(error, file=sys.stderr)
        sys.exit(NOT_LOADED)
    function.restype = None
    rows = []
    for image in np.ascontiguousarray(np.load(images), np.float32):
        row = np.empty(int(classes), np.float32)
        function(*(each.ctypes.data_as(ctypes.c_void_p) for each in (image, row)))
        rows.append(row)
    np.save(logits, np.stack(rows))


if __name__ == "__main__":
    main()
