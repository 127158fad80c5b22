"""Compares the tensors of an uploaded model with what its architecture publishes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.inspection.headers import TensorHeader
from api.problems import Problem
from api.text import clip

FLOATS = {"F16", "BF16", "F32", "F64"}

# A dimension of no size, or of one class, is no dimension of a classifier.
_SMALLEST = 2

# How many of each kind of difference a message lists.
_LISTED = 5


@dataclass(frozen=True, slots=True)
class Fit:
    """The numbers that an architecture leaves open, and N, the number of dense weights.

    Neither is known where the architecture publishes no tensors.
    """

    dimensions: dict[str, int]
    dense_weights: int | None


def fit(tensors: Mapping[str, TensorHeader], name: str, architecture: Mapping[str, Any]) -> Fit:
    """Bind the named dimensions of the architecture `name` to the shapes in `tensors`.

    `architecture` is its catalogue document; one without tensors leaves it all to the job. Raises
    `tensor_mismatch`, which lists the missing and unexpected keys and the wrong shapes; `param` is
    the first of them.
    """
    if architecture["tensors"] is None:
        return Fit({}, None)
    expected: Mapping[str, Any] = architecture["tensors"]
    missing = [key for key in expected if key not in tensors and not expected[key].get("optional")]
    unexpected = [key for key in tensors if key not in expected]
    dimensions: dict[str, int] = {}
    wrong = {
        key: reason
        for key, entry in expected.items()
        if key in tensors and (reason := _difference(tensors[key], entry, dimensions))
    }
    if missing or unexpected or wrong:
        raise _mismatch(name, missing, unexpected, wrong, expected)
    return Fit(dimensions, sum(tensors[key].elements for key in architecture["compressible"]))


def _difference(
    tensor: TensorHeader, entry: Mapping[str, Any], dimensions: dict[str, int]
) -> str | None:
    allowed = FLOATS | ({"I64"} if entry.get("optional") else set())
    if tensor.dtype not in allowed:
        return f"is {tensor.dtype}, expected one of {', '.join(sorted(allowed))}"
    if len(tensor.shape) == len(entry["shape"]):
        for dimension, length in zip(entry["shape"], tensor.shape, strict=True):
            if isinstance(dimension, str) and length >= _SMALLEST:
                dimensions.setdefault(dimension, length)
    # A dimension that stays unbound is a text, and so differs from every length.
    unbound = {name: f"{name} >= {_SMALLEST}" for name in entry["shape"] if isinstance(name, str)}
    bound = [(unbound | dimensions).get(n, n) for n in entry["shape"]]
    if list(tensor.shape) == bound:
        return None
    return f"is {list(tensor.shape)}, expected [{', '.join(str(length) for length in bound)}]"


def _mismatch(
    architecture: str,
    missing: Sequence[str],
    unexpected: Sequence[str],
    wrong: Mapping[str, str],
    expected: Mapping[str, Any],
) -> Problem:
    parts = [
        _listed("missing keys", missing),
        _listed("unexpected keys", [clip(key) for key in unexpected]),
        _listed("wrong tensors", [f"{key} {reason}" for key, reason in wrong.items()]),
    ]
    return Problem(
        "tensor_mismatch",
        f"The state dict does not fit {architecture!r}: {'; '.join(filter(None, parts))}."
        + _prefix_hint(unexpected, expected),
        clip([*missing, *unexpected, *wrong][0]),
    )


def _listed(what: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return f"{len(items)} {what} ({', '.join(items[:_LISTED])}{more})"


def _prefix_hint(unexpected: Sequence[str], expected: Mapping[str, Any]) -> str:
    # nn.DataParallel and torch.compile put a prefix before every key.
    prefixes = {key.partition(".")[0] for key in unexpected}
    if len(prefixes) != 1 or not all(key.partition(".")[2] in expected for key in unexpected):
        return ""
    prefix = f"{prefixes.pop()}."
    return f" Remove the prefix {clip(prefix)!r} from the keys."
