"""How small the compressed network must be."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from atmc_spec.base import Schema, SpecModel, broken
from atmc_spec.errors import InvalidInput
from atmc_spec.names import FLOAT_BITS, MAX_CODEBOOK_BITS, Bits, SmallTensorBits, StructureName
from atmc_spec.values import SMALLEST, Flag, Number, Whole

#: How much accuracy a network in int8 may lose by default.
INT8_DROP = 0.01


def _half_unless_float(target: Mapping[str, Any]) -> SmallTensorBits:
    """The default of ``small_tensor_bits``: who asks for no rounding gets none."""
    return 32 if target.get("bits") == FLOAT_BITS else 16


class Target(SpecModel):
    """The size to compress to: k non-zeros in all of U, V and C together, each stored in b bits.

    Exactly one of ``k``, ``density``, ``nominal_ratio``, ``max_bytes`` and ``macs`` is given; for
    ``nominal_ratio`` and ``max_bytes`` the job finds k. ``macs`` drops channels and no single
    entries: the multiply-adds of the network are the budget, and the non-zeros have none. With 1 to
    8 ``bits`` there are codebooks of 2^b values, 16 means float16 values and 32 means no
    quantisation.
    """

    SIZES: ClassVar[tuple[str, ...]] = ("k", "density", "nominal_ratio", "max_bytes", "macs")
    depends: ClassVar[Mapping[str, tuple[str, object]]] = {
        "macs": ("structure", "channel"),
        "int8_drop": ("int8", True),
    }

    bits: Annotated[
        Bits, Field(description="bits a non-zero: 1 to 8 a codebook, 16 float16, 32 float32")
    ]
    k: Annotated[Whole | None, Field(description="number of non-zeros of U, V, C together")] = None
    density: Annotated[Number | None, Field(gt=0, le=1, description="k over the dense weights")] = (
        None
    )
    nominal_ratio: Annotated[
        Number | None,
        Field(
            gt=0,
            le=1,
            description="at most this: bits of non-zeros and codebooks over those of the dense "
            "weights",
        ),
    ] = None
    max_bytes: Annotated[
        Whole | None,
        Field(ge=1, le=2**40, description="the artifact's file is at most that large"),
    ] = None
    structure: Annotated[
        StructureName,
        Field(
            description="what is kept or dropped: single entries, or whole output channels with "
            "all that reads them, so that the network really has fewer"
        ),
    ] = "element"
    small_tensor_bits: Annotated[
        SmallTensorBits,
        Field(
            description="bits of a value of what is no weight, where 32 is float32: with 16, "
            "codebooks, biases and norms are float16; with 8, biases are integers of 8 bits times "
            "a power of two, codebooks and norms float16; by default 16, and 32 where bits is 32"
        ),
    ] = Field(default_factory=_half_unless_float)
    macs: Annotated[
        Number | None,
        Field(
            ge=SMALLEST,
            le=1,
            description="with structure channel: the multiply-adds of an image are at most this "
            "share of the uploaded network's",
        ),
    ] = None
    int8: Annotated[
        Flag,
        Field(
            description="whether model.int8.onnx is made, too, and offered if it loses little; off "
            "by default, since attacking it takes about as long as the level quick"
        ),
    ] = False
    int8_drop: Annotated[
        Number | None,
        Field(
            ge=0,
            le=1,
            description="with int8: how much clean accuracy it may lose against model.onnx, and on "
            "what share of the images it may fail on which that stands under attack; by default "
            f"{INT8_DROP}",
        ),
    ] = None

    @model_validator(mode="after")
    def _has_one_size(self) -> Self:
        if sum(getattr(self, size) is not None for size in self.SIZES) != 1:
            raise broken(f"give exactly one of {', '.join(self.SIZES)}")
        return self

    @classmethod
    def rules(cls) -> Schema:
        """Exactly one of the sizes must be given."""
        return super().rules() | {"oneOf": [{"required": [size]} for size in cls.SIZES]}

    def given_k(self, num_weights: int) -> int | None:
        """The k of a network with ``num_weights`` dense conv and linear weights.

        It is None if the job has still to find it.

        Raises:
            InvalidInput: as ``count_nonzeros``.
        """
        return count_nonzeros(self.model_dump(), num_weights)


def count_nonzeros(target: Mapping[str, Any], num_weights: int) -> int | None:
    """The k of a network with ``num_weights`` dense conv and linear weights.

    It is None if the job has still to find it, for ``nominal_ratio`` and ``max_bytes``. For
    ``macs`` it is the budget of multiply-adds, as the same share of the weights.

    Args:
        target: the target as JSON.
        num_weights: how many there are.

    Raises:
        InvalidInput: ``k_out_of_range`` if k is 0 or above ``num_weights``, or ``nominal_ratio``
            leaves room for no non-zero at all.
    """
    ratio = target.get("nominal_ratio")
    given = next((name for name in ("k", "density", "macs") if target.get(name) is not None), "k")
    if ratio is not None:
        least = least_nominal_ratio(target["bits"], num_weights)
        if ratio < least:
            raise InvalidInput(
                "k_out_of_range",
                f"nominal_ratio {ratio} leaves 0 non-zeros, and with one it is {least:.3g} for a "
                f"network of {num_weights} weights: ask for more.",
                "target.nominal_ratio",
            )
        return None
    size = target.get(given)
    if size is None:
        return None
    # A share of the multiply-adds is a bound, so it is not rounded up.
    count = math.floor if given == "macs" else round
    k: int = size if given == "k" else count(size * num_weights)
    if not 1 <= k <= num_weights:
        wanted = f"k is {k}" if given == "k" else f"{given} {size} leaves {k}"
        raise InvalidInput(
            "k_out_of_range",
            f"{wanted}, and the network has {num_weights} weights: choose from 1 to "
            f"{num_weights} non-zeros.",
            f"target.{given}",
        )
    return k


def least_nominal_ratio(bits: int, num_weights: int) -> float:
    """The nominal ratio of a network with a single non-zero and the codebook value it may need.

    Args:
        bits: the bits of the non-zero.
        num_weights: the number of dense conv and linear weights.
    """
    codebook = FLOAT_BITS if bits <= MAX_CODEBOOK_BITS else 0
    return (bits + codebook) / (FLOAT_BITS * num_weights)
