"""Reads an archive of class folders: ``train/cat/1.png``, or ``cat/1.png`` without splits."""

from atmc_core.data.archive import Archive
from atmc_core.data.collector import Collector, Reading
from atmc_core.data.images import decode
from atmc_core.data.source import Source
from atmc_spec.datasets.layout import class_folders, listed

_MAX_IMAGE_BYTES = 64 * 2**20


def read_folders(archive: Archive, reading: Reading) -> Source:
    """Read all images; the labels number the class folders in the order of their names.

    Raises:
        InvalidInput: ``malformed_dataset``, ``bad_image`` or ``image_shape_mismatch``, with the
            member's name.
    """
    found = class_folders(archive.names(), archive.folders)
    labels = {name: label for label, name in enumerate(found.names)}
    collector = Collector(reading)
    collector.expect(len(found.places))
    for member, (split, class_name) in found.places.items():
        image = decode(archive.read(member, _MAX_IMAGE_BYTES), reading.channels, member)
        collector.add(split, image, labels[class_name], member)
    seen = {class_name for split, class_name in found.places.values() if split == "train"}
    notes = _unseen([name for name in found.names if name not in seen])
    return Source(collector.splits(), found.names, notes)


def _unseen(names: list[str]) -> tuple[tuple[str, str], ...]:
    """A note of the classes that the training images do not show."""
    if not names:
        return ()
    message = (
        f"No training image is of the class {listed(names)}. The folder counts as a class all the "
        "same, so that the labels of the others stay what they are."
    )
    return (("class_without_images", message),)
