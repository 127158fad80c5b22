"""Compares the tensors of an uploaded model with what its architecture publishes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.problems import Problem
from atmc_spec import InvalidInput
from atmc_spec.checkpoints import StateDict
from atmc_spec.state_dicts import TensorHeader, fit_state_dicts


@dataclass(frozen=True, slots=True)
class Fit:
    """The numbers that an architecture leaves open, and N, the number of dense weights.

    Neither is known where the architecture publishes no tensors.
    """

    dimensions: dict[str, int]
    dense_weights: int | None


def fit(
    tensors: Mapping[str, TensorHeader] | Sequence[StateDict[TensorHeader]],
    name: str,
    architecture: Mapping[str, Any],
) -> Fit:
    """Bind the named dimensions of the architecture `name` to the shapes in `tensors`.

    `tensors` may be several state dicts, of which one has to fit. `architecture` is its catalogue
    document; one without tensors leaves it all to the job. Raises `several_state_dicts` or
    `tensor_mismatch`, which lists the missing and unexpected keys and the wrong shapes; `param` is
    the first of them.
    """
    if architecture["tensors"] is None:
        return Fit({}, None)
    found = [StateDict((), tensors)] if isinstance(tensors, Mapping) else tensors
    try:
        fitted = fit_state_dicts(found, name, architecture["tensors"])
    except InvalidInput as error:
        raise Problem(error.code, error.message, error.param) from error
    weights = architecture["compressible"]
    return Fit(fitted.dimensions, sum(fitted.headers[key].elements for key in weights))
