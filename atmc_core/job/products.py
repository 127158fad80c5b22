"""What stages make, kept by the key of all that it depends on, so that jobs share it.

A stage that says what it ``reads`` has a key: the SHA-256 of that, of the job's inputs, and of the
keys of the stages whose results it needs. Two stages of the same key come to the same result, so
the second takes the first one's from a ``Shelf``. What lies there is read like a checkpoint:
tensors and plain values, and nothing is run.
"""

import hashlib
import json
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from atmc_core.events import Emit
from atmc_core.job.checkpoint import FORMAT
from atmc_core.job.handover import CompressedState, Handover, State
from atmc_core.networks.state_dict import load_tensors


@dataclass(frozen=True)
class Found:
    """A product that lies on the shelf.

    Attributes:
        path: its file.
        job_id: the job that made it.
        seconds: the time that its epochs took there.
    """

    path: Path
    job_id: str
    seconds: float


class Shelf(Protocol):
    """Where products lie that jobs share."""

    #: The job that takes and puts.
    job_id: str
    #: What tells the job's files from others: the SHA-256 of each.
    files: Mapping[str, str]

    def take(
        self, key: str, stage: str, *, told: Callable[[str], None], patient: bool
    ) -> Found | None:
        """Ask for a product.

        Args:
            key: the product's key.
            stage: the stage that makes it.
            told: is called once, with the id of the job that makes the product now, if one does.
            patient: whether to wait until that job has made it.

        Returns:
            The product; None means that this job has to make it.
        """

    def refuse(self, key: str, stage: str) -> None:
        """Say that the product that was taken cannot be used, so that it counts as absent."""

    def put(self, key: str, stage: str, seconds: float, write: Callable[[Path], None]) -> None:
        """Lay a product on the shelf.

        Args:
            seconds: the time that its epochs took.
            write: writes it to the file that it is given.
        """


class Keys:
    """The keys of a job's stages, in their order.

    Attributes:
        closed: whether a stage came that has none, after which no other has.

    Args:
        inputs: all that the job is given and that every stage depends on, as plain values.
    """

    def __init__(self, inputs: Mapping[str, Any]) -> None:
        self._inputs = {"format": FORMAT, "torch": torch.__version__} | dict(inputs)
        self.closed = False
        # The key of the stage that made each field of the handover last.
        self._made: dict[str, str] = {}

    def of(self, stage: str, epochs: int, reads: Mapping[str, Any], needs: tuple[str, ...]) -> str:
        """The key of a stage.

        Args:
            reads: what its result depends on, as plain values.
            needs: the fields of the handover that it reads.
        """
        parts = {
            "inputs": self._inputs,
            "stage": stage,
            "epochs": epochs,
            "reads": reads,
            "needs": {field: self._made.get(field) for field in needs},
        }
        document = json.dumps(parts, sort_keys=True, allow_nan=False)
        return hashlib.sha256(document.encode()).hexdigest()

    def note(self, key: str, gives: str) -> None:
        """Note which stage gives a field of the handover from here on."""
        self._made[gives] = key


def write_product(handover: Handover, gives: str, path: Path) -> None:
    """Write the field of the handover that a stage gives."""
    torch.save({"format": FORMAT, gives: handover.state()[gives]}, path)


def read_product(found: Found, gives: str, network: nn.Module, images: int) -> State | None:
    """Read a field of the handover from a product's file.

    Args:
        network: the job's network; it may get the product's weights.
        images: how many images the job evaluates.

    Returns:
        The field's state; None if the file holds no such field that fits the job.
    """
    try:
        content = torch.load(found.path, map_location="cpu", weights_only=True)
        if set(content) != {"format", gives} or content["format"] != FORMAT:
            return None
        field: State = content[gives]
        if gives == "network":
            load_tensors(network, field)
        elif gives == "compressed":
            load_tensors(network, CompressedState(**field).network)
        elif not all(_covers(part, images) for part in (field["clean"], *_attacks(field))):
            return None
    except _UNREADABLE:
        return None
    return field


_UNREADABLE = (
    RuntimeError,
    EOFError,
    OSError,
    pickle.UnpicklingError,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
)


def _attacks(evaluation: State) -> list[Any]:
    return list(evaluation["attacks"].values())


def _covers(outcome: Any, images: int) -> bool:
    """Whether an outcome says of each evaluated image whether it is right."""
    right = outcome["right"]
    return isinstance(right, Tensor) and right.dtype is torch.bool and right.shape == (images,)


def waiting(stage: str, emit: Emit) -> Callable[[str], None]:
    """What tells that a stage waits for another job that makes the same."""

    def told(job_id: str) -> None:
        message = f"{job_id} is at the same, and this job will take what it makes"
        emit({"type": "stage", "stage": stage, "status": "waiting", "message": message})

    return told
