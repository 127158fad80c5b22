"""What a reader found, and how it becomes three splits."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from atmc_core.data.sets import SPLITS, DataSet, Split, hold_out
from atmc_core.errors import InvalidInput

#: Share of train that a missing test split is cut from it with.
TEST_FRACTION = 0.2


@dataclass(frozen=True)
class Source:
    """The splits of a file: ``train`` always, ``val`` and ``test`` if it has them."""

    splits: Mapping[str, Split]
    class_names: tuple[str, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()


def complete(
    source: Source, validation_fraction: float, seed: int, folder: Path | None = None
) -> DataSet:
    """Cut what is missing from train, stratified, by seed, and say so.

    Args:
        folder: as ``Reading``'s.

    Raises:
        InvalidInput: ``empty_split`` if there is too little to cut from.
    """
    splits, notes = dict(source.splits), list(source.notes)
    for name, fraction in (("test", TEST_FRACTION), ("val", validation_fraction)):
        _check_train(splits["train"])
        if name not in splits:
            splits["train"], splits[name] = hold_out(splits["train"], fraction, seed, folder)
            meant = {"test": "test", "val": "validation"}[name]
            message = (
                f"There is no {meant} split: {len(splits[name]):,} images of train were held "
                f"out for it, stratified by class, with seed {seed}."
            )
            notes.append((f"{meant}_split_cut", message))
    _check_train(splits["train"])
    return DataSet(
        **{name: splits[name] for name in SPLITS},
        class_names=source.class_names,
        notes=tuple(notes),
    )


def _check_train(train: Split) -> None:
    if len(train) < 2:
        raise InvalidInput(
            "empty_split",
            "train holds 1 image, not counting what is held out of it: at least 2 are needed",
            "x_train",
        )
