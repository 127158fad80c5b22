"""The trials of a grid, or of a list of partial specs."""

import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

Spec = dict[str, Any]

AXES: Mapping[str, str] = {
    "densities": "target.density",
    "nominal_ratios": "target.nominal_ratio",
    "bits": "target.bits",
    "methods": "method",
    "seeds": "seed",
}
"""The axes of a grid that have a name, and the field of the spec that each gives."""

SIZES: tuple[str, ...] = ("density", "nominal_ratio", "k", "max_bytes", "macs")
"""The fields of `target` of which one says how large the network may be; larger is denser."""

# What only the stages after robust training look at; the other options decide the dense network.
_OF_COMPRESSION = frozenset(
    {
        "compression_epochs",
        "finish_epochs",
        "rho",
        "dual_interval",
        "density_schedule",
        "shrink_fraction",
        "rank_fraction",
        "importance",
        "teacher_weight",
    }
)


class InvalidGrid(ValueError):
    """A grid that makes no specs; `place` is where in the request."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(message)
        self.place = place


@dataclass(frozen=True)
class Planned:
    """A trial's spec, the fields that set it apart, and where in the request each was given.

    `point` and `places` are by the path of the field in the spec, such as `target.bits`.
    """

    spec: Spec
    point: dict[str, Any]
    places: dict[str, str] = field(default_factory=dict)

    def place_of(self, path: str | None) -> str:
        """Return where in the request the field of the trial's spec was given.

        What the grid does not give is the base's, `spec`.
        """
        for given, place in self.places.items():
            if path == given or (path or "").startswith(f"{given}."):
                return place + (path or "")[len(given) :]
        return f"spec.{path}" if path else "spec"


def count(grid: Mapping[str, Any]) -> int:
    """Return how many trials the grid has, before any of them is made."""
    number = 1
    for _, _, values in _axes(grid):
        number *= len(values)
    return number


def expand(base: Spec, grid: Mapping[str, Any]) -> list[Planned]:
    """Return a trial for every combination of the grid's values, the first axis slowest.

    Raises `InvalidGrid` for axes that are none, and for values that come twice.
    """
    axes = list(_axes(grid))
    _check(axes)
    trials = []
    for chosen in itertools.product(*(list(enumerate(values)) for _, _, values in axes)):
        spec, point, places = deepcopy(base), {}, {}
        for (place, path, _), (number, value) in zip(axes, chosen, strict=True):
            _put(spec, path, value, place)
            point[path], places[path] = value, f"{place}[{number}]"
        trials.append(Planned(spec, point, places))
    return trials


def lay_over(base: Spec, partials: Sequence[Spec]) -> list[Planned]:
    """Return a trial for each partial spec laid over the base: objects are merged, field by field.

    Raises `InvalidGrid` for two that are alike.
    """
    trials, known = [], set()
    for number, partial in enumerate(partials):
        point = dict(_leaves(partial))
        if (alike := _digest(partial)) in known:
            raise InvalidGrid(f"specs[{number}]", "it is the same as one before it")
        known.add(alike)
        places = {path: f"specs[{number}].{path}" for path in point}
        trials.append(Planned(_merged(base, partial), point, places))
    return trials


def size_of(spec: Spec) -> tuple[str, float] | None:
    """Return the size that the spec asks for: the name of the field in `target`, and its value."""
    target = spec.get("target") or {}
    return next(((name, target[name]) for name in SIZES if target.get(name) is not None), None)


def densers(specs: Sequence[Spec]) -> list[int | None]:
    """Return of each spec the index of its denser neighbour, None where it has none.

    That is the spec with the next larger size that is otherwise the same.
    """
    alike: dict[str, list[tuple[float, int]]] = {}
    for index, spec in enumerate(specs):
        if (size := size_of(spec)) is not None:
            rest = deepcopy(spec)
            del rest["target"][size[0]]
            alike.setdefault(_digest([size[0], rest]), []).append((size[1], index))
    found: list[int | None] = [None] * len(specs)
    for group in alike.values():
        for (_, index), (_, denser) in itertools.pairwise(sorted(group)):
            found[index] = denser
    return found


def shares(spec: Spec) -> str:
    """Return a digest of what decides the things that trials make before they compress.

    Those are the evaluation of the upload and the dense robust network. Trials of one sweep with
    the same digest make the same of both.
    """
    training = spec.get("training") or {}
    kept = {name: value for name, value in training.items() if name not in _OF_COMPRESSION}
    parts = [kept, *(spec.get(name) for name in ("threat", "evaluation", "seed"))]
    return _digest(parts)


def _axes(grid: Mapping[str, Any]) -> Iterator[tuple[str, str, list[Any]]]:
    """Yield the place in the request, the path in the spec, and the values of each axis."""
    for name, path in AXES.items():
        if grid.get(name) is not None:
            yield f"grid.{name}", path, grid[name]
    for path, values in (grid.get("fields") or {}).items():
        yield f"grid.fields.{path}", path, values


def _check(axes: Sequence[tuple[str, str, list[Any]]]) -> None:
    if not axes:
        raise InvalidGrid("grid", f"name an axis: {', '.join(AXES)}, or one of fields")
    paths = [path for _, path, _ in axes]
    for number, (place, path, values) in enumerate(axes):
        if not all(path.split(".")):
            raise InvalidGrid(place, f"{path!r} is no path of a field, such as training.rho")
        for other in paths[:number]:
            if f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}."):
                raise InvalidGrid(place, f"{other!r} is given by another axis already")
        sizes = {f"target.{name}" for name in SIZES}
        if path in sizes and (twice := sizes.intersection(paths[:number])):
            raise InvalidGrid(place, f"another axis gives the size already, {min(twice)!r}")
        written = [_digest(value) for value in values]
        for index, value in enumerate(written):
            if value in written[:index]:
                raise InvalidGrid(f"{place}[{index}]", f"{values[index]!r} comes twice")


def _put(spec: Spec, path: str, value: Any, place: str) -> None:
    *parents, name = path.split(".")
    inner = spec
    for step, parent in enumerate(parents):
        inner = inner.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise InvalidGrid(place, f"{'.'.join(parents[: step + 1])!r} in spec is no object")
    inner[name] = deepcopy(value)


def _merged(base: Spec, over: Spec) -> Spec:
    merged = deepcopy(base)
    for name, value in over.items():
        inner = merged.get(name)
        if isinstance(inner, dict) and isinstance(value, dict):
            merged[name] = _merged(inner, value)
        else:
            merged[name] = deepcopy(value)
    return merged


def _leaves(document: Spec, path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{path}{name}.")
        else:
            yield f"{path}{name}", value


def _digest(value: Any) -> str:
    # 4 and 4.0 are the same number in JSON.
    text = json.dumps(_plain(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
