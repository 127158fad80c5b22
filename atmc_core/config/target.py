"""How small the result is to be."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from atmc_core.config.names import Bits, Structure
from atmc_core.errors import InvalidInput
from atmc_core.schema import Interval


@dataclass(frozen=True)
class Target:
    """How small: so many non-zeros over all of U, V, C, each stored in b bits.

    Exactly one of ``k``, ``density``, ``nominal_ratio`` and ``max_bytes`` is given; for the last
    two ``budget.Budget`` finds k. ``bits`` 1 to 8 mean codebooks of 2^b values, 16 means float16
    values and 32 means no quantisation.
    """

    SIZES: ClassVar[tuple[str, ...]] = ("k", "density", "nominal_ratio", "max_bytes")
    SCHEMA_EXTRA: ClassVar[dict[str, object]] = {"oneOf": [{"required": [size]} for size in SIZES]}

    bits: Annotated[Bits, "bits a non-zero: 1 to 8 a codebook, 16 float16, 32 float32"]
    k: Annotated[int | None, "number of non-zeros of U, V, C together"] = None
    density: Annotated[float | None, Interval(gt=0, le=1), "k over the dense weights"] = None
    nominal_ratio: Annotated[
        float | None,
        Interval(gt=0, le=1),
        "at most this: bits of non-zeros and codebooks over those of the dense weights",
    ] = None
    max_bytes: Annotated[
        int | None, Interval(ge=1, le=2**40), "the artifact's file is at most that large"
    ] = None
    structure: Annotated[
        Structure,
        "what is kept or dropped: single entries, or whole output channels with all that reads "
        "them, so that the network really has fewer",
    ] = "element"

    def __post_init__(self) -> None:
        if sum(getattr(self, size) is not None for size in self.SIZES) != 1:
            listed = ", ".join(self.SIZES)
            raise InvalidInput("invalid_value", f"give exactly one of {listed}")

    def budget(self, num_weights: int) -> int | None:
        """k for a network of ``num_weights`` dense conv and linear weights; None if not yet known.

        Raises:
            InvalidInput: if k is 0 or above ``num_weights``, or no non-zero fits the ratio.
        """
        if self.max_bytes is not None:
            return None
        if self.nominal_ratio is not None:
            least = least_nominal_ratio(self.bits, num_weights)
            if self.nominal_ratio < least:
                raise InvalidInput(
                    "k_out_of_range",
                    f"nominal_ratio {self.nominal_ratio} leaves no non-zero; with one it is "
                    f"{least:.3g}: ask for more",
                    "nominal_ratio",
                )
            return None
        k = self.k if self.k is not None else round((self.density or 0) * num_weights)
        if not 1 <= k <= num_weights:
            given = "k" if self.k is not None else "density"
            raise InvalidInput(
                "k_out_of_range",
                f"{k} non-zeros asked for; the network has {num_weights} weights: "
                f"choose k from 1 to {num_weights}",
                given,
            )
        return k


def least_nominal_ratio(bits: int, num_weights: int) -> float:
    """The nominal ratio of a network with a single non-zero."""
    return (bits + (32 if bits <= 8 else 0)) / (32 * num_weights)
