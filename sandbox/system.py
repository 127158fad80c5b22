"""What a Python program with torch needs of the machine's files, and what it may do to them."""

import importlib.machinery
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sandbox.landlock import DEVICE, OWN, READ, RUN, Access

# Programs and their libraries. On most systems all but the first are links to it.
_PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store")
# Settings of libraries, none of which holds a secret: the rest of /etc stays closed.
_SETTINGS = (
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "ld.so.preload", "alternatives"),
    *("localtime", "timezone", "locale.alias", "locale.conf", "mime.types", "os-release"),
    *("passwd", "group", "nsswitch.conf", "hosts", "host.conf", "resolv.conf", "gai.conf"),
    *("ssl/openssl.cnf", "fonts", "OpenCL", "debian_version"),
)
# What there is of processors, memory and GPUs. Landlock lets nobody look into the memory or the
# environment of processes outside, although they are below /proc.
_MACHINE = (
    *("/proc", "/sys/devices", "/sys/bus", "/sys/class", "/sys/module", "/sys/fs/cgroup"),
    "/sys/kernel/mm",
)
_DEVICES = ("null", "zero", "full", "random", "urandom")
_GPUS = ("nvidia*", "dri", "kfd")


def needed(
    code: Sequence[Path], folder: Path | None, *, together: bool
) -> Iterator[tuple[Path, Access]]:
    """Yield files and folders, and what the program may do to each.

    `folder` is its own, `code` lies outside of Python's folders. Processes that train together on
    GPUs share memory by /dev/shm.
    """
    interpreters = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix}
    libraries = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep))
    for each in (*_PROGRAMS, *interpreters, *libraries, *map(str, code)):
        yield Path(each), RUN
    for name in _SETTINGS:
        yield Path("/etc", name), READ
    for name in _MACHINE:
        yield Path(name), READ
    for name in _DEVICES:
        yield Path("/dev", name), DEVICE
    for pattern in _GPUS:
        for device in Path("/dev").glob(pattern):
            yield device, DEVICE | Access.READ_DIR
    if together:
        yield Path("/dev/shm"), OWN
    if folder is not None:
        yield folder, OWN


@dataclass(frozen=True)
class Code:
    """What Python finds outside of its own folders, when this is made.

    Attributes:
        installed: folders into which packages were installed, whole.
        loose: packages and modules in other folders, one by one: a checkout also holds what is no
            code, the data folder often.
    """

    installed: Sequence[Path]
    loose: Sequence[Path]

    @property
    def paths(self) -> list[Path]:
        """All of it."""
        return [*self.installed, *self.loose]

    @classmethod
    def find(cls) -> "Code":
        """Look for it where Python looks."""
        installed, loose = [], []
        suffixes = tuple(importlib.machinery.all_suffixes())
        for place in _places():
            with os.scandir(place) as entries:
                names = [entry.name for entry in entries]
            if any(name.endswith(".dist-info") for name in names):
                installed.append(Path(place))
                continue
            for name in names:
                path = f"{place}/{name}"
                if name.endswith(suffixes) or os.path.exists(f"{path}/__init__.py"):
                    loose.append(Path(path))
        return cls(installed, loose)

    def link(self, folder: Path) -> None:
        """Have Python find it by links in a new folder, in what this process starts, too.

        Python has to list a folder to find a package in it, and of the folders of loose ones
        nothing but those stays open.
        """
        folder.mkdir(exist_ok=True)
        for each in self.loose:
            with suppress(FileExistsError):  # The first one is what Python finds.
                os.symlink(each, folder / each.name)
        paths = [str(each) for each in (folder, *self.installed)]
        closed = set(_places())
        sys.path[:] = [*paths, *(each for each in sys.path if os.path.realpath(each) not in closed)]
        os.environ["PYTHONPATH"] = os.pathsep.join(paths)


def _places() -> list[str]:
    """The folders of code outside of Python's own."""
    own = tuple(os.path.realpath(each) + "/" for each in (sys.prefix, sys.base_prefix))
    # A package that was installed to be edited need not be where Python looks.
    loaded = [module for name, module in sys.modules.items() if "." not in name]
    beside = [os.path.dirname(each) for m in loaded for each in getattr(m, "__path__", ())]
    places = dict.fromkeys(os.path.realpath(each) for each in (*sys.path, *beside))
    return [each for each in places if os.path.isdir(each) and not f"{each}/".startswith(own)]
