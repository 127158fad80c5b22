"""Which split and which class each file of an archive belongs to, by the names alone."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from atmc_spec.datasets.members import base_name, is_image
from atmc_spec.errors import InvalidInput

#: The split that a folder's or a file's name means, in lower case and as short as can be.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
# How people lengthen these names: train_set, testset, test_images, partial-train.
_LENGTHENED = re.compile(r"(?:partial[-_ ])?(.+?)[-_ ]?(?:set|split|data|images|imgs)?")
# Names of folders that are no classes where all others are splits: test1, images, unlabelled.
_NO_CLASSES = {"all", "data", "extra", "images", "image", "imgs", "img", "unlabeled", "unlabelled"}
_NO_CLASSES |= {"eval", "evaluation", "holdout", "unsup", "unsupervised", "predict", "pictures"}
_LISTED = 20
_ITSELF = "if this is the data, send it itself"
_TO_PNG = "save it as PNG"
_LABELS = "labels are read off the folders' names; put images into CLASS/ or SPLIT/CLASS/"
_AS_ARRAYS = "write what it holds as arrays into an .npz file"
# What to do with other files, by their suffix.
_OTHERS = (
    dict.fromkeys((".npz", ".safetensors", ".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz"), _ITSELF)
    | dict.fromkeys((".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".heic"), _TO_PNG)
    | dict.fromkeys((".csv", ".tsv", ".txt", ".json", ".xml"), _LABELS)
    | dict.fromkeys((".h5", ".hdf5", ".mat", ".pkl", ".pickle", ".bin", ".arrow"), _AS_ARRAYS)
    | dict.fromkeys((".jfif", ".jpe"), "rename it to .jpg")
)
# Parts of a path: SPLIT/CLASS/NAME, CLASS/NAME.
_WITH_SPLIT, _WITHOUT_SPLIT = 3, 2

Parts = tuple[str, ...]


@dataclass(frozen=True)
class ClassFolders:
    """Images in class folders.

    Attributes:
        places: the split and the class of each image, by its member's name.
        names: the names of the classes, sorted, those of empty folders included; an image's label
            is the position of its class here.
    """

    places: Mapping[str, tuple[str, str]]
    names: tuple[str, ...]


def split_of(name: str) -> str | None:
    """The split (``train``, ``val`` or ``test``) that a folder's name means, or None."""
    found = _LENGTHENED.fullmatch(name.lower())
    return SPLIT_NAMES.get(found[1]) if found else None


def class_folders(files: Iterable[str], folders: Iterable[str]) -> ClassFolders:
    """Find split and class of each image: ``train/cat/1.png``, or ``cat/1.png`` without splits.

    Most tools put one more folder around everything, which is ignored.

    Args:
        files: the clean names of the files.
        folders: the clean names of the folders that the archive has entries for.

    Raises:
        InvalidInput: ``malformed_dataset``, with the member's or the folder's name, where a file
            is no image or lies elsewhere, where there are fewer than two classes, or where a
            folder is rather a split than a class.
    """
    found = {name: _image_parts(name) for name in files}
    if not found:
        raise _malformed(
            "the archive has no images, not counting hidden files and folders", "dataset"
        )
    found, empty = _unwrapped(found, [PurePosixPath(name).parts for name in folders])
    with_splits = any(len(p) == _WITH_SPLIT and split_of(p[0]) for p in found.values())
    places = {name: _place(name, parts, with_splits=with_splits) for name, parts in found.items()}
    seen = set(places.values()) | _empty_classes(empty, with_splits=with_splits)
    classes = {class_name for _, class_name in seen}
    _check_classes({name for _, name in places.values()}, with_splits=with_splits)
    if with_splits:
        _check_splits_agree(seen)
    return ClassFolders(places, tuple(sorted(classes)))


def parquet_splits(names: Collection[str]) -> dict[str, str]:
    """The split of each Parquet file, by its name or else by the folders that it lies in.

    The layouts are ``train-00000-of-00001.parquet``, ``data/train-...``, and the Hub's conversion,
    ``CONFIG/train/0000.parquet``.

    Raises:
        InvalidInput: ``malformed_dataset`` with the name of a file whose split is not told, or
            that is there twice, in folders of two configurations.
    """
    splits: dict[str, str] = {}
    seen: dict[tuple[str, str], str] = {}
    for name in names:
        base = base_name(name)
        words = (*re.split(r"[-_. \d]+", base), *reversed(name.split("/")[:-1]))
        split = next(filter(None, map(split_of, words)), None)
        if split is None:
            raise _malformed(
                f"neither the name of {name[:120]!r} nor a folder around it says train, validation "
                "or test",
                name,
            )
        other = seen.setdefault((split, base), name)
        if other != name:
            raise _malformed(
                f"{other[:120]!r} and {name[:120]!r} seem to be of two configurations: send one",
                name,
            )
        splits[name] = split
    return splits


def _image_parts(name: str) -> Parts:
    if not is_image(name):
        suffix = PurePosixPath(name).suffix.lower()
        remedy = _OTHERS.get(suffix, "beside class folders of images nothing else may lie")
        raise _malformed(
            f"{name[:120]!r} is neither PNG nor JPEG, nor an array (.npy), an idx file or Parquet: "
            + remedy,
            name,
        )
    return PurePosixPath(name).parts


def _unwrapped(found: dict[str, Parts], empty: list[Parts]) -> tuple[dict[str, Parts], list[Parts]]:
    """The parts of all paths without the folders around everything."""
    while True:
        tops = {parts[0] for parts in found.values()}
        depth = min(map(len, found.values()))
        if len(tops) > 1 or depth < _WITH_SPLIT:
            return found, empty
        top = tops.pop()
        # test_images/ alone is somebody's name for the whole; test/ alone is a split.
        if depth == _WITH_SPLIT and (top.lower() in SPLIT_NAMES or split_of(top) == "train"):
            return found, empty
        found = {name: parts[1:] for name, parts in found.items()}
        empty = [parts[1:] for parts in empty if parts[0] == top and len(parts) > 1]


def _place(name: str, parts: Parts, *, with_splits: bool) -> tuple[str, str]:
    """The split and the class of an image."""
    split = split_of(parts[0])
    if with_splits and len(parts) == _WITH_SPLIT and split:
        return split, parts[1]
    if not with_splits and len(parts) == _WITHOUT_SPLIT:
        return "train", parts[0]
    shown = "/".join(parts)[:120]
    if with_splits and len(parts) == _WITHOUT_SPLIT:
        if split:
            reason = (
                f"{parts[0][:80]}/ has images without a class folder ({shown!r}): put them into "
                f"{parts[0][:80]}/CLASS/ as their labels say, or leave {parts[0][:80]}/ out"
            )
        else:
            reason = (
                f"{parts[0][:80]}/ lies beside folders of splits and is none ({shown!r}): put it "
                f"into train/, or leave it out"
            )
        raise _malformed(reason, name)
    raise _malformed(
        f"{name[:120]!r} is neither in CLASS/ nor in train/CLASS/, val/CLASS/ or test/CLASS/", name
    )


def _empty_classes(empty: list[Parts], *, with_splits: bool) -> set[tuple[str, str]]:
    """The splits and classes of folders that the archive has entries for, empty or not."""
    found: set[tuple[str, str]] = set()
    for parts in empty:
        if with_splits and len(parts) == _WITH_SPLIT - 1 and (split := split_of(parts[0])):
            found.add((split, parts[1]))
        elif not with_splits and len(parts) == 1:
            found.add(("train", parts[0]))
    return found


def _check_classes(classes: set[str], *, with_splits: bool) -> None:
    """Check that the folders with images are classes, and several."""
    if not with_splits and all(split_of(n.rstrip("0123456789")) or _says_no(n) for n in classes):
        raise _malformed(
            f"its folders are {listed(sorted(classes))}, which are no classes but splits or "
            "unlabelled images: put the images of each class into a folder of its own, "
            "train/CLASS/ or CLASS/",
            "dataset",
        )
    if len(classes) == 1:
        name = next(iter(classes))
        raise _malformed(
            f"there is a single class folder with images, {name[:80]!r}: put the images of each "
            "class into a folder of its own, CLASS/ or train/CLASS/",
            "dataset",
        )


def _says_no(name: str) -> bool:
    return name.lower() in _NO_CLASSES


def _check_splits_agree(seen: set[tuple[str, str]]) -> None:
    """Check that the splits have the same classes, as far as that can be asked for."""
    by_split: dict[str, set[str]] = {}
    for split, name in seen:
        by_split.setdefault(split, set()).add(name)
    train = by_split.get("train", set())
    for split, names in sorted(by_split.items()):
        spelled = {name.casefold(): name for name in train - names}
        for name in sorted(names - train):
            if name.casefold() in spelled:
                other = spelled[name.casefold()]
                raise _malformed(
                    f"the classes {other[:80]!r} in train and {name[:80]!r} in {split} differ by "
                    "case only: give both one name",
                    name,
                )
        strange = sorted(names - train)
        if train and (len(strange) == len(names) or any(map(_says_no, strange))):
            raise _malformed(
                f"{split} has the class folders {listed(strange)}, and train has none of these "
                f"({listed(sorted(train))}): put the images of {split} into folders of the same "
                f"names as those of train, or leave {split} out",
                "dataset",
            )


def listed(names: Collection[str]) -> str:
    """The names with commas, cut where they are many or long."""
    shown = [name[:40] for _, name in zip(range(_LISTED), names, strict=False)]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(shown) + more


def _malformed(reason: str, param: str) -> InvalidInput:
    return InvalidInput("malformed_dataset", reason, param[:120])
