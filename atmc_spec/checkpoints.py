"""Finds the state dicts in what a training framework saved: tensors among plain data.

The API looks for them in a file's outline, the job in the loaded file, and both find the same.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from atmc_spec.refusals import clip

T = TypeVar("T")
#: The keys, and positions in lists, that lead to a part of a file.
Path = tuple[str | int, ...]

# Nothing is looked for deeper than this.
_MAX_DEPTH = 16
# What lies under a key with one of these in it belongs to training, not to the network.
_OF_TRAINING = ("optim", "sched", "scaler", "rng")
# How many of a file's other entries a message names, from each dictionary and in all.
_NAMED = 6
# How many characters of a place a message shows.
_PLACE_WIDTH = 160


@dataclass(frozen=True)
class StateDict(Generic[T]):
    """Tensors by name that lie together in a file.

    Attributes:
        path: the keys that lead to them; empty for what is at the top.
        tensors: the tensors, or their headers.
        beside: names of other entries of the file, next to them and along the path; not all of
            many.
    """

    path: Path
    tensors: Mapping[str, T]
    beside: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """The path as Python subscripts, ``['ema']['shadow']``; empty at the top."""
        keys = (f"[{clip(key)!r}]" if isinstance(key, str) else f"[{key}]" for key in self.path)
        return clip("".join(keys), _PLACE_WIDTH)

    @property
    def others(self) -> str:
        """The names beside, for a message."""
        names = ", ".join(clip(name) for name in self.beside[:_NAMED])
        return f"{names} and more" if len(self.beside) > _NAMED else names


def find_state_dicts(
    document: object, as_tensor: Callable[[object], T | None]
) -> list[StateDict[T]]:
    """All dictionaries of a file that hold tensors by name, but for those of optimisers.

    Args:
        document: dictionaries, lists and tuples of anything.
        as_tensor: the header of a tensor, or the tensor; None for whatever is no tensor.

    Returns:
        Each dictionary once, however often the file refers to it, the topmost first.
    """
    found: list[StateDict[T]] = []
    waiting: list[tuple[Path, tuple[str, ...], object]] = [((), (), document)]
    # Containers may refer to each other again and again; each is looked into once.
    seen: set[int] = set()
    for path, beside, node in waiting:
        if id(node) in seen or len(path) > _MAX_DEPTH:
            continue
        seen.add(id(node))
        if isinstance(node, dict):
            if "param_groups" in node:
                continue
            tensors = dict(_named(node, as_tensor))
            if tensors:
                others = (str(key) for key in node if key not in tensors)
                found.append(StateDict(path, tensors, (*beside, *islice(others, _NAMED + 1))))
        names = tuple(map(str, islice(node, _NAMED + 2))) if isinstance(node, dict) else ()
        waiting += [
            ((*path, key), (*beside, *(name for name in names if name != str(key))), inner)
            for key, inner in _containers(node)
        ]
    return found


def _named(
    node: dict[object, object], as_tensor: Callable[[object], T | None]
) -> Iterator[tuple[str, T]]:
    for key, value in node.items():
        if isinstance(key, str) and (tensor := as_tensor(value)) is not None:
            yield key, tensor


def _containers(node: object) -> Iterator[tuple[str | int, object]]:
    """The entries of a container that may hold state dicts, with their keys."""
    items: Iterable[tuple[object, object]] = ()
    if isinstance(node, dict):
        items = node.items()
    elif isinstance(node, list | tuple):
        items = enumerate(node)
    for key, inner in items:
        trained = isinstance(key, str) and any(part in key.lower() for part in _OF_TRAINING)
        if isinstance(key, str | int) and isinstance(inner, dict | list | tuple) and not trained:
            yield key, inner
