"""The images of a report, as PNGs inside the document, so that the page needs no other file."""

import base64
import io
from collections.abc import Mapping
from typing import Any

from PIL import Image
from torch import Tensor

from atmc_core.data import Split
from atmc_core.evaluation.plan import shown_positions


def pictures(
    split: Split, indices: Tensor, sides: Mapping[str, dict[str, Any]]
) -> list[dict[str, Any]]:
    """Some evaluated images and their adversarial examples, with the labels that the models gave.

    Args:
        split: the evaluated images.
        indices: their positions in their split, int64 ``[N]``.
        sides: the results for each classifier (see ``Evaluator``), by side of the report.
    """
    return [
        {
            "index": int(indices[position]),
            "label": int(split.labels[position]),
            "image": png(split.images[position]),
        }
        | {when: _answers(found, place, int(position)) for when, found in sides.items()}
        for place, position in enumerate(shown_positions(split.labels))
    ]


def _answers(found: dict[str, Any], place: int, position: int) -> dict[str, Any]:
    """What one model answered for an image and its adversarial example.

    There is no adversarial example if the model was wrong on the image itself.
    """
    shown = found["shown"]
    answers: dict[str, Any] = {"predicted": int(found["clean"]["predicted"][position])}
    if shown["attack"][place]:
        answers |= {
            "attack": shown["attack"][place],
            "fooled": shown["fooled"][place],
            "attacked_predicted": shown["predicted"][place],
            "attacked_image": png((shown["images"][place] * 255).round().byte()),
        }
    return answers


def png(image: Tensor) -> str:
    """An image as a PNG in a ``data:`` address.

    Args:
        image: uint8 ``[C, H, W]``, RGB if there are three channels; otherwise the first channel is
            shown in grey.
    """
    pixels = image.cpu().permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
