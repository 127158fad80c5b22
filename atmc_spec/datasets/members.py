"""The names of an archive's members: which are safe, which count, and which form they make."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from atmc_spec.errors import InvalidInput

#: What an archive holds; ``folders`` are class folders of images.
Form = Literal["arrays", "cifar", "idx", "parquet", "folders"]

#: The suffixes that images may have.
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")

# What file managers, NAS devices and notebooks leave in folders, beside names that begin with a
# dot, in lower case.
_LITTER = {
    "__macosx",
    "__pycache__",
    "@__thumb",
    "@eadir",
    "@recently-snapshot",
    "@recycle",
    "@sharebin",
    "@synoresource",
    "@tmp",
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "recycler",
    "system volume information",
    "lost+found",
    "network trash folder",
    "temporary items",
    "desktop.ini",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "thumbs.db",
    "picasa.ini",
    "zbthumbnail.info",
    "icon\r",
}
# Files on a data set that hold none of it, by the name without its suffix, in lower case.
_COMPANIONS = {
    "authors",
    "changelog",
    "citation",
    "copying",
    "dataset_dict",
    "dataset_info",
    "dataset_infos",
    "licence",
    "license",
    "notice",
    "readme",
}
# What else may lie beside files that say themselves what they are.
_TEXTS = {".bib", ".cff", ".htm", ".html", ".json", ".md", ".pdf", ".py", ".rst", ".txt", ".yaml"}
_TEXTS |= {".yml"}
# The suffix of a form's files, or None if their names tell otherwise, and what they are called.
_SUFFIXES: dict[Form, tuple[str | None, str]] = {
    "arrays": (".npy", ".npy arrays"),
    "idx": (None, "idx files"),
    "parquet": (".parquet", "Parquet files"),
}
_DRIVE = re.compile(r"[A-Za-z]:(/|$)")
_CIFAR_10 = re.compile(r"(data_batch_\d|test_batch|batches\.meta)")


@dataclass(frozen=True)
class Listing:
    """The members of an archive that count.

    Attributes:
        files: for each file's clean name its position among all members.
        folders: the names of the folders, without the slash, that the archive has entries for, or
            that something hidden lies in.
    """

    files: Mapping[str, int]
    folders: tuple[str, ...]


def listing(names: Iterable[str]) -> Listing:
    """Sort the members of an archive; those that are hidden or litter are left out.

    Args:
        names: the members' names as they stand in the archive, those of folders with a slash (or a
            backslash) at the end.

    Raises:
        InvalidInput: ``malformed_dataset`` if a name leads out of the archive, or is there twice.
    """
    files: dict[str, int] = {}
    folders: set[str] = set()
    for position, raw in enumerate(names):
        name = clean_name(raw)
        is_folder, parts = name.endswith("/"), PurePosixPath(name).parts
        if not is_ignored(name):
            if is_folder:
                folders.update("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
            elif files.setdefault(name, position) != position:
                raise InvalidInput(
                    "malformed_dataset",
                    f"the archive cannot be used: {name[:120]!r} is in it twice",
                    name[:120],
                )
        elif not is_folder and len(parts) > 1 and _is_hidden(parts[-1]):
            # A version control system keeps an empty folder by a hidden file, as .gitkeep.
            folder = "/".join(parts[:-1])
            if not is_ignored(f"{folder}/"):
                folders.add(folder)
    return Listing(files, tuple(sorted(folders)))


def clean_name(name: str) -> str:
    """A member's name with forward slashes, as every archive should have them.

    Some tools of Windows write backslashes, and those that pack the present folder write ``./``.
    The name of a folder ends in a slash.

    Raises:
        InvalidInput: ``malformed_dataset`` if there is no name, or it leads out of the archive.
    """
    slashed = name.replace("\\", "/")
    parts = [part for part in slashed.split("/") if part not in ("", ".")]
    leads_out = slashed.startswith("/") or ".." in parts or _DRIVE.match(slashed)
    if leads_out or "\0" in name:
        raise InvalidInput(
            "malformed_dataset",
            f"the archive cannot be used: the name {name[:120]!r} leads out of the archive",
            name[:120],
        )
    if not slashed:
        raise InvalidInput(
            "malformed_dataset", "the archive cannot be used: a member has no name", "dataset"
        )
    return "/".join(parts) + ("/" if parts and slashed.endswith("/") else "")


def is_ignored(name: str) -> bool:
    """Whether a member, by its clean name, is hidden, litter, or a text on the data set."""
    parts = PurePosixPath(name).parts
    if not parts or any(map(_is_hidden, parts)):
        return True
    stem, _, suffix = parts[-1].lower().partition(".")
    is_text = not suffix or f".{suffix}" in _TEXTS
    return not name.endswith("/") and stem in _COMPANIONS and is_text


def _is_hidden(part: str) -> bool:
    return part.startswith(".") or part.lower() in _LITTER


def array_name(name: str) -> str:
    """The name of the array in a ``.npy`` file, as NumPy calls it."""
    return base_name(name)[: -len(".npy")]


def is_image(name: str) -> bool:
    """Whether a member's suffix is that of an image that is read."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def is_idx(name: str) -> bool:
    """Whether a member's name is that of an idx file, as MNIST's are called."""
    return "idx" in base_name(name) and not is_image(name)


def base_name(name: str) -> str:
    """The name without its folders."""
    return name.rsplit("/", 1)[-1]


def form_of(names: Iterable[str]) -> Form:
    """What the files of an archive are, by their clean names without those that are ignored."""
    names = list(names)
    bases = {base_name(name) for name in names}
    if any(map(_CIFAR_10.fullmatch, bases)) or {"meta", "train", "test"} <= bases:
        return "cifar"
    for form in ("arrays", "parquet"):
        suffix, _ = _SUFFIXES[form]
        if suffix and any(name.lower().endswith(suffix) for name in names):
            return form
    if any(map(is_idx, names)) and not any(map(is_image, names)):
        return "idx"
    return "folders"


def those_of(form: Form, names: Iterable[str]) -> list[str]:
    """The files that belong to a form, without the texts that lie beside them.

    Args:
        form: ``arrays``, ``idx`` or ``parquet``.
        names: the names that ``form_of`` was given.

    Raises:
        InvalidInput: ``malformed_dataset`` with the name of a file that is neither.
    """
    suffix, what = _SUFFIXES[form]
    found = []
    for name in names:
        if is_idx(name) if suffix is None else name.lower().endswith(suffix):
            found.append(name)
        elif PurePosixPath(name).suffix.lower() not in _TEXTS:
            raise InvalidInput(
                "malformed_dataset",
                f"{name[:120]!r} lies among {what}, and is none: leave it out",
                name[:120],
            )
    return found
