"""Data sets of labelled images: reads them in any known form, checks, splits and feeds them."""

from atmc_core.data.augmentation import UNCHANGED, Augmentation
from atmc_core.data.collector import Reading
from atmc_core.data.feed import training_batches
from atmc_core.data.npz import load_npz
from atmc_core.data.read import load_dataset
from atmc_core.data.sets import (
    FEWER_CLASSES,
    SPLITS,
    DataSet,
    Split,
    check_against,
    hold_out,
    note_missing_classes,
)

__all__ = [
    "FEWER_CLASSES",
    "SPLITS",
    "UNCHANGED",
    "Augmentation",
    "DataSet",
    "Reading",
    "Split",
    "check_against",
    "hold_out",
    "load_dataset",
    "load_npz",
    "note_missing_classes",
    "training_batches",
]
