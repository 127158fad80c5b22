"""Encoded images, PNG or JPEG, decoded without trusting a byte of them."""

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atmc_core.errors import InvalidInput

#: Of one image: larger than any classifier's input, far below what hurts.
MAX_PIXELS = 4096 * 4096
_FORMATS = ("PNG", "JPEG")
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I")


def decode(content: bytes, channels: int | None, name: str) -> NDArray[np.uint8]:
    """One image as uint8 ``[C, H, W]``: grey for one channel, RGB for three (or where None).

    Sixteen bits become eight, CMYK becomes RGB; transparency is put on black.

    Raises:
        InvalidInput: ``bad_image`` (naming the member): not PNG or JPEG, too many pixels, more than
            one frame, or truncated.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content), formats=_FORMATS)
            # The header alone was read: nothing is allocated for the pixels yet.
            if image.width * image.height > MAX_PIXELS:
                raise _bad(name, f"it claims {image.width} x {image.height} pixels")
            if getattr(image, "n_frames", 1) > 1:
                raise _bad(name, "it has several frames; send each as a file of its own")
            image.load()
            return _array(image, channels)
    except InvalidInput:
        raise
    except Exception as error:
        # Decoders raise what they like at broken files.
        raise _bad(name, f"it cannot be decoded as PNG or JPEG ({error})") from error


def _array(image: Image.Image, channels: int | None) -> NDArray[np.uint8]:
    if image.mode in _SIXTEEN_BIT:
        grey = np.asarray(image).astype(np.int64).clip(0, 65535) // 257
        image = Image.fromarray(grey.astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(ground, layered).convert("RGB")
    grey_wanted = channels == 1
    pixels = np.asarray(image.convert("L" if grey_wanted else "RGB"))
    array: NDArray[np.uint8] = np.ascontiguousarray(
        pixels[None] if grey_wanted else pixels.transpose(2, 0, 1)
    )
    return array


def _bad(name: str, reason: str) -> InvalidInput:
    return InvalidInput("bad_image", f"{name[:120]!r} cannot be used: {reason}", name[:120])
