"""Holds uploaded tensors against those of an architecture, by their names, types and shapes.

The API does so with the headers of a file, and the job with the same of the loaded tensors, so that
they take the same files and refuse the others in the same words.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from atmc_spec.checkpoints import StateDict
from atmc_spec.errors import InvalidInput
from atmc_spec.refusals import clip

#: The types that weights may have, as safetensors names them.
FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
#: The tensors of an architecture as it is published: for each name its ``shape``, in which a text
#: stands for an open number, and whether it is ``optional``.
Expected = Mapping[str, Mapping[str, Any]]

# A dimension of no size, or of one class, is no dimension of a classifier.
_SMALLEST = 2
# How many of each kind of difference a message lists.
_LISTED = 5
# What training tools put into names: DataParallel, torch.compile, checkpointing and FSDP.
_WRAPPERS = frozenset({"module", "_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"})
# The counter of torch.optim.swa_utils.AveragedModel, which is no weight.
_COUNTER = "n_averaged"
# Prefixes of more parts than this are not looked for, nor more state dicts of one file compared.
_MAX_PARTS, _MAX_COMPARED = 8, 100
# What names end in, or hold, where weights are computed from other tensors.
_REPARAMETRISED = ("weight_g", "weight_v", "weight_u", ".original", ".original0", ".original1")


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """The type (``"F32"``, as safetensors names it) and shape of one stored tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """The number of numbers in it."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Fitted:
    """A state dict that fits an architecture.

    Attributes:
        state_dict: the one of the file's that does.
        sources: for each of the network's tensors the names of the file's: one, or a weight and the
            mask to multiply it by.
        headers: the types and shapes of the network's tensors.
        dimensions: the numbers that the architecture leaves open.
        notes: what was changed in reading the file, as pairs of a code and a sentence.
    """

    state_dict: StateDict[TensorHeader]
    sources: dict[str, tuple[str, ...]]
    headers: dict[str, TensorHeader]
    dimensions: dict[str, int]
    notes: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Names:
    """The tensors of a state dict under the names that are left without wrappers and masks."""

    state_dict: StateDict[TensorHeader]
    sources: dict[str, tuple[str, ...]]
    headers: dict[str, TensorHeader]
    wrapped: tuple[str, ...] = ()

    @property
    def masked(self) -> int:
        """How many weights come with a mask."""
        return sum(len(names) > 1 for names in self.sources.values())


@dataclass(frozen=True)
class _Comparison:
    """The tensors behind one prefix of a state dict, held against an architecture."""

    names: _Names
    prefix: str
    missing: list[str] = field(default_factory=list)
    wrong: dict[str, str] = field(default_factory=dict)
    dimensions: dict[str, int] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether all that the architecture needs is there."""
        return not self.missing and not self.wrong


def fit_state_dicts(
    found: Sequence[StateDict[TensorHeader]], name: str, expected: Expected
) -> Fitted:
    """Choose the state dict that is the network's, and say which of its tensors is which.

    Names may have one prefix that is common to all, and the parts that DataParallel and
    torch.compile add; weights may come with the masks of ``torch.nn.utils.prune``.

    Args:
        found: the state dicts of a file, one at least.
        name: the architecture's name, for messages.
        expected: the architecture's tensors.

    Raises:
        InvalidInput: ``several_state_dicts`` if more than one fits; ``tensor_mismatch``, which
            lists the missing and unexpected keys and the wrong shapes, if none does. ``param`` is
            the first of them.
    """
    needed = sum(not entry.get("optional") for entry in expected.values())
    by_size = sorted(found, key=lambda each: -len(each.tensors))
    large = [each for each in by_size[:_MAX_COMPARED] if len(each.tensors) >= needed]
    compared = [each for some in large or by_size[:1] for each in _compare(some, expected)]
    whole = [each for each in compared if each.whole]
    if len(whole) > 1:
        raise _several(name, whole)
    best = whole[0] if whole else _closest(compared)
    if not best.whole or best.unexpected:
        raise _mismatch(name, best, expected)
    names = best.names
    theirs = {key: best.prefix + key for key in expected if best.prefix + key in names.headers}
    return Fitted(
        names.state_dict,
        {key: names.sources[their] for key, their in theirs.items()},
        {key: names.headers[their] for key, their in theirs.items()},
        best.dimensions,
        tuple(_notes(best)),
    )


def _compare(state_dict: StateDict[TensorHeader], expected: Expected) -> list[_Comparison]:
    """The comparisons behind all prefixes that may be the network's, one at least."""
    plain = _merged(state_dict)
    names = plain
    if any(key not in plain.headers and not expected[key].get("optional") for key in expected):
        names = _unwrapped(plain)
    counts = Counter(
        prefix for key in names.headers for prefix, rest in _splits(key) if rest in expected
    )
    needed = sum(not entry.get("optional") for entry in expected.values())
    prefixes = [prefix for prefix, count in counts.items() if count >= needed]
    if not prefixes:
        # Of those with most names in common the shortest, or else none.
        prefixes = [max(counts, key=lambda p: (counts[p], -len(p)), default="")]
    return [_behind(names, prefix, expected) for prefix in prefixes]


def _splits(key: str) -> Iterable[tuple[str, str]]:
    """The ways to cut a name into a prefix that ends in a point, or is empty, and the rest."""
    yield "", key
    place = -1
    for _ in range(_MAX_PARTS):
        place = key.find(".", place + 1)
        if place < 0:
            return
        yield key[: place + 1], key[place + 1 :]


def _merged(state_dict: StateDict[TensorHeader]) -> _Names:
    """The tensors, each X_orig with an X_mask of its shape as one X."""
    tensors = state_dict.tensors
    sources: dict[str, tuple[str, ...]] = {}
    headers, masks = {}, set()
    for key, header in tensors.items():
        base = key.removesuffix("_orig")
        mask = tensors.get(f"{base}_mask")
        if base != key and mask and mask.shape == header.shape and base not in tensors:
            sources[base], headers[base] = (key, f"{base}_mask"), header
            masks.add(f"{base}_mask")
        else:
            sources[key], headers[key] = (key,), header
    for mask_name in masks:
        del sources[mask_name], headers[mask_name]
    return _Names(state_dict, sources, headers)


def _unwrapped(names: _Names) -> _Names:
    """The tensors without the wrappers' parts of their names; as they are if two became one."""
    renamed: dict[str, str] = {}
    wrapped: dict[str, None] = {}
    for key in names.headers:
        parts = key.split(".")
        wrapped |= dict.fromkeys(part for part in parts[:-1] if part in _WRAPPERS)
        renamed[".".join([p for p in parts[:-1] if p not in _WRAPPERS] + parts[-1:])] = key
    if not wrapped or len(renamed) < len(names.headers):
        return names
    return _Names(
        names.state_dict,
        {new: names.sources[old] for new, old in renamed.items()},
        {new: names.headers[old] for new, old in renamed.items()},
        tuple(wrapped),
    )


def _behind(names: _Names, prefix: str, expected: Expected) -> _Comparison:
    """Hold the tensors whose names begin with the prefix against the architecture's."""
    compared = _Comparison(names, prefix)
    for key, entry in expected.items():
        header = names.headers.get(prefix + key)
        if header is None:
            if not entry.get("optional"):
                compared.missing.append(key)
        elif reason := _difference(header, entry, compared.dimensions):
            compared.wrong[key] = reason
    compared.unexpected.extend(
        key
        for key in names.headers
        if not (key.startswith(prefix) and key[len(prefix) :] in expected)
        and key.rpartition(".")[2] != _COUNTER
    )
    return compared


def _difference(
    tensor: TensorHeader, entry: Mapping[str, Any], dimensions: dict[str, int]
) -> str | None:
    """What is wrong with a tensor, or None; open dimensions that it tells are added."""
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


def _closest(compared: Sequence[_Comparison]) -> _Comparison:
    """The comparison that lacks the fewest tensors; of several the one with fewest others."""
    return min(compared, key=lambda each: (len(each.missing), len(each.unexpected)))


def _mismatch(name: str, best: _Comparison, expected: Expected) -> InvalidInput:
    parts = [
        _listed("missing keys", best.missing),
        _listed("unexpected keys", [clip(key) for key in best.unexpected]),
        _listed("wrong tensors", [f"{key} {reason}" for key, reason in best.wrong.items()]),
    ]
    where = best.names.state_dict.place
    what = f"The state dict {where}" if where else "The state dict"
    behind = f", behind the prefix {clip(best.prefix)!r}" if best.prefix else ""
    return InvalidInput(
        "tensor_mismatch",
        f"{what} does not fit {name!r}{behind}: {'; '.join(filter(None, parts))}."
        + _hint(best, name),
        clip([*best.missing, *best.unexpected, *best.wrong][0]),
    )


def _listed(what: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    more = f" and {len(items) - _LISTED} more" if len(items) > _LISTED else ""
    return f"{len(items)} {what} ({', '.join(items[:_LISTED])}{more})"


def _hint(best: _Comparison, name: str) -> str:
    """What to do about the differences, as far as the names tell."""
    if any(key.endswith(_REPARAMETRISED) for key in best.unexpected):
        return (
            " Weights are computed from other tensors here (weight norm, spectral norm): call "
            "remove_weight_norm, remove_spectral_norm or parametrize.remove_parametrizations "
            "before saving."
        )
    if not best.whole:
        return ""
    keep = f" that begin with {clip(best.prefix)!r}" if best.prefix else ""
    hint = f" All of {name!r} is there: send the tensors{keep} alone, without the others."
    if any(key.rpartition(".")[2].endswith(("mean", "std")) for key in best.unexpected):
        hint += " Give a normalisation that they hold as the model's 'normalization' instead."
    return hint


def _several(name: str, whole: Sequence[_Comparison]) -> InvalidInput:
    """The refusal to choose between state dicts that all fit, with how to choose."""
    places = [_described(each) for each in whole[:_LISTED]]
    more = f" and {len(whole) - _LISTED} more" if len(whole) > _LISTED else ""
    averaged = " Those with 'ema' or 'swa' in their names are averages over training."
    text = " ".join(places).lower()
    return InvalidInput(
        "several_state_dicts",
        f"{len(whole)} state dicts of the file fit {name!r}: {', '.join(places)}{more}. Which one "
        f"is meant? Send it alone: {_how(whole[0])}."
        + (averaged if "ema" in text or "swa" in text or "averag" in text else ""),
        "model",
    )


def _described(each: _Comparison) -> str:
    place = each.names.state_dict.place
    prefix = f"the keys that begin with {clip(each.prefix)!r}" if each.prefix else ""
    return " ".join(filter(None, [place, prefix])) or "the keys without a prefix"


def _how(each: _Comparison) -> str:
    """How to save one of several state dicts alone."""
    place = each.names.state_dict.place
    if each.prefix or not place:
        return "keep its keys and leave the others out"
    return f"torch.save(torch.load('model.pt', map_location='cpu'){place}, 'state_dict.pt')"


def _notes(best: _Comparison) -> Iterable[tuple[str, str]]:
    names, state_dict = best.names, best.names.state_dict
    if state_dict.path or state_dict.beside:
        place = f"the tensors are those under {state_dict.place}" if state_dict.path else ""
        beside = f"the file's other entries ({state_dict.others}) are not read"
        parts = filter(None, [place, beside if state_dict.beside else ""])
        yield "state_dict_nested", "; ".join(parts)
    stripped = [f"{part}." for part in names.wrapped] + ([best.prefix] if best.prefix else [])
    if stripped:
        what = " and ".join(repr(clip(part)) for part in stripped)
        message = (
            f"{what} was taken out of the tensors' names; what a wrapper computes around the "
            "network, such as a normalisation, is not part of the file"
        )
        yield "prefix_stripped", message
    if names.masked:
        message = (
            f"{names.masked} tensors came as X_orig and X_mask (torch.nn.utils.prune): they were "
            "multiplied"
        )
        yield "masks_applied", message
