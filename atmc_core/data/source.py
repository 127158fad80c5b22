"""The splits that a reader found in a file, and how the missing ones are made."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from atmc_core.data.sets import SPLITS, DataSet, Split, hold_out
from atmc_core.errors import InvalidInput

#: The share of train that a missing test split gets.
TEST_FRACTION = 0.2


@dataclass(frozen=True)
class Source:
    """The content of a data set's file.

    Attributes:
        splits: the splits by name: ``train``, and ``val`` and ``test`` if the file has them.
        class_names: the names of the classes by label; empty if the file does not have them.
        notes: what was changed in reading the file, as pairs of a code and a sentence.
    """

    splits: Mapping[str, Split]
    class_names: tuple[str, ...] = ()
    notes: tuple[tuple[str, str], ...] = ()


def complete(
    source: Source, validation_fraction: float, seed: int, folder: Path | None = None
) -> DataSet:
    """Make a data set, for which missing splits are cut from train, stratified by class.

    Args:
        source: the splits that there are.
        validation_fraction: the share of train that a missing validation split gets.
        seed: seeds the choice of images.
        folder: as in ``Reading``.

    Returns:
        The data set; its notes say which splits were cut.

    Raises:
        InvalidInput: ``empty_split`` if train has too few images.
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
