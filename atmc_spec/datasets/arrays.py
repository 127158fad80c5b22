"""What images and labels in arrays must be, by type and shape alone."""

from collections.abc import Sequence

# Numbers of channels that images usually have.
_GREY_OR_RGB = (1, 3)
_MOST_CHANNELS = 4


def wrong_images(name: str, dtype: str, shape: Sequence[int]) -> str | None:
    """What is wrong with an array of images and what to do, or None if it can be used.

    Args:
        name: the array's name.
        dtype: its type as NumPy names it.
        shape: its shape.
    """
    found = f"{name} is {dtype} {list(shape)}"
    if dtype != "uint8":
        return f"{found}; expected uint8 [N, H, W] or [N, H, W, C], 0 to 255. " + _to_uint8(
            name, dtype
        )
    if len(shape) == 2:
        return (
            f"{found}; expected uint8 [N, H, W] or [N, H, W, C]. Where a row is an image, "
            f"{name}.reshape(N, H, W, C) makes it one"
        )
    if len(shape) not in (3, 4):
        return f"{found}; expected uint8 [N, H, W] or [N, H, W, C]"
    if len(shape) == 4 and _is_channels_first(shape):
        return (
            f"{found}, which looks like [N, C, H, W]; expected [N, H, W, C]. "
            f"Write {name}.transpose(0, 2, 3, 1)"
        )
    return None


def wrong_labels(name: str, dtype: str, shape: Sequence[int]) -> str | None:
    """What is wrong with an array of labels and what to do, or None; arguments as above.

    Labels ``[N, 1]`` can be used, too.
    """
    found = f"{name} is {dtype} {list(shape)}; expected integers [N]"
    if len(shape) == 2 and shape[0] == 1 != shape[1]:
        return f"{found}. Write {name}.reshape(-1)"
    if len(shape) == 2 and shape[1] != 1:
        return f"{found}. Where a row is one label of {shape[1]}, write {name}.argmax(axis=1)"
    if len(shape) not in (1, 2):
        return f"{found}, one label for each image"
    if dtype.lstrip("<>|=").startswith(("uint", "int", "u", "i")):
        return None
    if dtype.lstrip("<>|=").startswith(("str", "U", "S")):
        return f"{found}. Number the classes from 0: np.unique({name}, return_inverse=True)[1]"
    return f"{found}. Where these are whole numbers, write {name}.astype('int64')"


def _to_uint8(name: str, dtype: str) -> str:
    if dtype.lower() == "bool":
        return f"Write {name}.astype('uint8') * 255"
    if dtype.lstrip("<>=").startswith(("uint16", "u2")):
        return f"Where white is 65535, write ({name} // 257).astype('uint8')"
    if dtype.lstrip("<>=").startswith(("int", "uint", "i", "u")):
        return f"Where the values are 0 to 255, write {name}.astype('uint8')"
    return (
        f"Where the values are in [0, 1], multiply by 255 and round: "
        f"({name} * 255).round().astype('uint8'); where they are 0 to 255, "
        f"{name}.round().astype('uint8'). Undo a normalisation first: it is given with the model"
    )


def _is_channels_first(shape: Sequence[int]) -> bool:
    """Whether ``[N, C, H, W]`` is meant, as far as a shape tells: square and grey or RGB."""
    return shape[1] in _GREY_OR_RGB and shape[2] == shape[3] > _MOST_CHANNELS
