"""Images as PNGs inside the document, so that the page needs no other file."""

import base64
import io
from typing import Any

from PIL import Image
from torch import Tensor

from atmc_core.data import Split
from atmc_core.evaluation.plan import shown_positions


def pictures(
    split: Split, indices: Tensor, before: dict[str, Any], after: dict[str, Any] | None
) -> list[dict[str, Any]]:
    """Some evaluated images with the labels given to them and to their adversarial twins.

    Args:
        split: the evaluated images.
        indices: their places in the test split.
        before: what the evaluation found, and ``after`` if there is a compressed model.
    """
    sides = {"before": before} | ({"after": after} if after else {})
    return [
        {
            "index": int(indices[position]),
            "label": int(split.labels[position]),
            "image": png(split.images[position]),
        }
        | {when: _twin(found, place, int(position)) for when, found in sides.items()}
        for place, position in enumerate(shown_positions(split.labels))
    ]


def _twin(found: dict[str, Any], place: int, position: int) -> dict[str, Any]:
    """What one model said; without a twin if the image was wrong before any attack."""
    shown = found["shown"]
    twin: dict[str, Any] = {"predicted": int(found["clean"]["predicted"][position])}
    if shown["attack"][place]:
        twin |= {
            "attack": shown["attack"][place],
            "fooled": shown["fooled"][place],
            "attacked_predicted": shown["predicted"][place],
            "attacked_image": png((shown["images"][place] * 255).round().byte()),
        }
    return twin


def png(image: Tensor) -> str:
    """A ``data:`` address; the image is uint8 ``[C, H, W]`` of one or three channels.

    Of any other number of channels the first is shown.
    """
    pixels = image.cpu().permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
