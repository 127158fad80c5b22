"""What a reader found, and how it becomes three splits."""

from collections.abc import Mapping
from dataclasses import dataclass

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


def complete(source: Source, validation_fraction: float, seed: int) -> DataSet:
    """Cut what is missing from train, stratified, by seed, and say so.

    Raises:
        InvalidInput: ``empty_split`` if there is too little to cut from.
    """
    splits, notes = dict(source.splits), list(source.notes)
    for name, fraction in (("test", TEST_FRACTION), ("val", validation_fraction)):
        if len(splits["train"]) < 2:
            raise InvalidInput(
                "empty_split", "train holds 1 image: at least 2 are needed", "x_train"
            )
        if name not in splits:
            splits["train"], splits[name] = hold_out(splits["train"], fraction, seed)
            meant = {"test": "test", "val": "validation"}[name]
            message = (
                f"There is no {meant} split: {len(splits[name]):,} images of train were held "
                f"out for it, stratified by class, with seed {seed}."
            )
            notes.append((f"{meant}_split_cut", message))
    return DataSet(
        **{name: splits[name] for name in SPLITS},
        class_names=source.class_names,
        notes=tuple(notes),
    )
