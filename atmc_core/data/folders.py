"""Reads a zip of class folders: ``train/cat/1.png``, or ``cat/1.png`` if there are no splits."""

from pathlib import PurePosixPath

from atmc_core.data.archive import Archive
from atmc_core.data.collector import Collector, Reading
from atmc_core.data.images import decode
from atmc_core.data.source import Source
from atmc_core.errors import InvalidInput

#: The suffixes that images may have.
SUFFIXES = (".png", ".jpg", ".jpeg")
#: The split that a folder's or a file's name means.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
_MAX_IMAGE_BYTES = 64 * 2**20


def read_folders(archive: Archive, reading: Reading) -> Source:
    """Read all images; the labels number the class folders in the order of their names.

    Raises:
        InvalidInput: ``malformed_dataset``, ``bad_image`` or ``image_shape_mismatch``, with the
            member's name.
    """
    places = _places(archive)
    names = sorted({class_name for _, class_name in places.values()})
    labels = {name: label for label, name in enumerate(names)}
    collector = Collector(reading)
    collector.expect(len(places))
    for member, (split, class_name) in places.items():
        image = decode(archive.read(member, _MAX_IMAGE_BYTES), reading.channels, member)
        collector.add(split, image, labels[class_name], member)
    return Source(collector.splits(), tuple(names))


def _places(archive: Archive) -> dict[str, tuple[str, str]]:
    """The split and the class of each image, by its member's name."""
    found = {}
    for member in archive.names():
        path = PurePosixPath(member)
        if path.suffix.lower() not in SUFFIXES:
            raise InvalidInput(
                "malformed_dataset",
                f"{member[:120]!r} is neither PNG nor JPEG: a zip of class folders has only images",
                member[:120],
            )
        found[member] = path.parts
    if not found:
        raise InvalidInput("malformed_dataset", "the zip has no images", "dataset")
    # Most tools put one more folder around everything, which is ignored.
    tops = {parts[0] for parts in found.values()}
    wrapped = len(tops) == 1 and all(len(parts) > 3 for parts in found.values())
    if len(tops) == 1 and not wrapped:
        wrapped = min(map(len, found.values())) == 3 and not tops & SPLIT_NAMES.keys()
    places = {}
    for member, parts in found.items():
        inner = parts[1:] if wrapped else parts
        if len(inner) == 3 and inner[0].lower() in SPLIT_NAMES:
            places[member] = (SPLIT_NAMES[inner[0].lower()], inner[1])
        elif len(inner) == 2:
            places[member] = ("train", inner[0])
        else:
            raise InvalidInput(
                "malformed_dataset",
                f"{member[:120]!r} is neither in CLASS/ nor in train/CLASS/, val/CLASS/ or "
                "test/CLASS/",
                member[:120],
            )
    return places
