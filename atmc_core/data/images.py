"""Decodes untrusted PNG and JPEG images."""

import io
import re
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from atmc_core.errors import InvalidInput
from atmc_spec.datasets.kinds import HEAD_BYTES, kind_of

#: The largest number of pixels of an image: more than any classifier takes, and still harmless.
MAX_PIXELS = 4096 * 4096
# What Python shows of an object without a text of its own.
_ADDRESS = re.compile(r"<[^<>]* at 0x[0-9a-f]+>")
_FORMATS = ("PNG", "JPEG")
# Pillow's name of a JPEG with further, small pictures behind it, as phones and cameras write them.
_JPEG_WITH_PREVIEWS = "MPO"
# Pillow's modes for grey images of 16 bits.
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I")
_MAX_SIXTEEN_BIT = 65535
# The white of 16 bits divided by the white of 8 bits.
_SIXTEEN_TO_EIGHT_BIT = 257


def decode(content: bytes, channels: int | None, name: str) -> NDArray[np.uint8]:
    """Decode an image.

    Sixteen bits are reduced to eight, CMYK is converted to RGB, and transparent pixels are blended
    with black. Of a photograph with small pictures behind it (MPO) the first picture is taken.

    Args:
        content: the encoded image.
        channels: 1 for grey, 3 or None for RGB.
        name: the image's name, for messages.

    Returns:
        The image, uint8 ``[C, H, W]``.

    Raises:
        InvalidInput: ``bad_image`` if it is not PNG or JPEG, has too many pixels or several frames,
            or is broken.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content), formats=_FORMATS)
            # Only the header has been read so far, and no memory allocated for pixels.
            if image.width * image.height > MAX_PIXELS:
                raise _bad(name, f"it claims {image.width} x {image.height} pixels")
            several = image.format != _JPEG_WITH_PREVIEWS and getattr(image, "n_frames", 1) > 1
            if several:
                raise _bad(name, "it has several frames; send each as a file of its own")
            image.load()
            return _array(image, channels)
    except InvalidInput:
        raise
    except UnidentifiedImageError as error:
        raise _bad(name, _unidentified(content[:HEAD_BYTES])) from error
    except Exception as error:
        # For broken files the decoders raise exceptions of many types.
        raise _bad(
            name, f"it cannot be decoded as PNG or JPEG ({_ADDRESS.sub('', str(error))})"
        ) from error


def _array(image: Image.Image, channels: int | None) -> NDArray[np.uint8]:
    if image.mode in _SIXTEEN_BIT:
        grey = np.asarray(image).astype(np.int64).clip(0, _MAX_SIXTEEN_BIT) // _SIXTEEN_TO_EIGHT_BIT
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


def _unidentified(head: bytes) -> str:
    """What a file is that is neither PNG nor JPEG, or not as far as its header goes."""
    if head[:3] == b"\xff\xd8\xff" or head[:8] == b"\x89PNG\r\n\x1a\n":
        return "it begins as PNG or JPEG, but its header is broken: send it again"
    found = kind_of(head)
    what = f"it is {found[0]}" if found else "it is of no known kind"
    return f"{what}, whatever its name says, where PNG or JPEG is expected"


def _bad(name: str, reason: str) -> InvalidInput:
    return InvalidInput("bad_image", f"{name[:120]!r} cannot be used: {reason}", name[:120])
