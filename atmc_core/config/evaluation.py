"""How a job's report comes about, and what it is held against."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from atmc_core.config.names import AttackName, Level
from atmc_core.errors import InvalidInput
from atmc_core.schema import Interval

#: The four attacks that ``autoattack`` stands for, in running order.
AUTOATTACK: tuple[AttackName, ...] = ("apgd_ce", "apgd_t", "fab_t", "square")
_QUICK: tuple[AttackName, ...] = ("fgsm", "pgd")
_ALL: tuple[AttackName, ...] = (*_QUICK, "pgd_cw", "pgd_dlr", "wrm", "autoattack")
#: The attacks and the number of images of each level of evaluation.
LEVELS: dict[Level, tuple[tuple[AttackName, ...], int]] = {
    "quick": (_QUICK, 1_000),
    "standard": (_ALL, 1_000),
    "full": (_ALL, 10_000),
}


@dataclass(frozen=True)
class Evaluation:
    """The attacks of the report; the epsilon and the norm are the threat's.

    A level chooses attacks and images; each can be chosen by itself, too.
    """

    SCHEMA_EXTRA: ClassVar[dict[str, object]] = {
        "allOf": [
            {
                "properties": {
                    "attacks": {
                        "not": {
                            "allOf": [
                                {"contains": {"const": "autoattack"}},
                                {"contains": {"enum": list(AUTOATTACK)}},
                            ]
                        }
                    }
                }
            }
        ]
    }

    level: Annotated[
        Level,
        "quick: FGSM and PGD on up to 1,000 images; standard: all attacks on up to 1,000; "
        "full: all attacks on up to 10,000",
    ] = "quick"
    attacks: Annotated[
        tuple[AttackName, ...] | None,
        "by default the level's; autoattack is apgd_ce, apgd_t, fab_t and square, each on what "
        "the ones before it left standing",
    ] = None
    max_images: Annotated[
        int | None,
        Interval(ge=1, le=1_000_000),
        "images of the test split at most, drawn by seed and stratified; by default the level's",
    ] = None
    pgd_steps: Annotated[int, Interval(ge=1, le=10_000), "PGD steps"] = 20
    pgd_restarts: Annotated[int, Interval(ge=1, le=1000), "PGD random starts"] = 2
    wrm_steps: Annotated[int, Interval(ge=1, le=10_000), "WRM steps"] = 15
    wrm_gamma: Annotated[
        float, Interval(gt=0, le=1e6), "WRM's weight of the loss against the squared length"
    ] = 1.3
    autoattack_steps: Annotated[
        int, Interval(ge=1, le=10_000), "iterations of APGD and FAB, for each target"
    ] = 100
    autoattack_targets: Annotated[
        int, Interval(ge=1, le=1000), "classes that APGD-T and FAB-T aim at, at most"
    ] = 9
    square_queries: Annotated[int, Interval(ge=1, le=1_000_000), "queries of Square"] = 5000
    curve_images: Annotated[
        int, Interval(ge=1, le=1_000_000), "images of the curve of accuracy against epsilon"
    ] = 200
    curve_steps: Annotated[int, Interval(ge=1, le=10_000), "PGD steps at each of its points"] = 10
    batch_size: Annotated[int, Interval(ge=1, le=65_536), "images a batch"] = 500

    def __post_init__(self) -> None:
        named = self.attacks or ()
        for member in AUTOATTACK:
            if "autoattack" in named and member in named:
                message = f"autoattack includes {member}: name one of the two"
                raise InvalidInput("invalid_value", message, "attacks")

    def attack_names(self, num_classes: int) -> tuple[AttackName, ...]:
        """Those named, or the level's, of which PGD on DLR makes no sense below three classes."""
        if self.attacks is not None:
            return self.attacks
        names = LEVELS[self.level][0]
        return tuple(name for name in names if name != "pgd_dlr" or num_classes >= 3)

    @property
    def image_limit(self) -> int:
        return self.max_images if self.max_images is not None else LEVELS[self.level][1]


@dataclass(frozen=True)
class Accept:
    """Thresholds that the result is held against; a job that misses one has not failed."""

    robust_accuracy: Annotated[
        float | None, Interval(ge=0, le=1), "the least robust accuracy of the result"
    ] = None
    clean_accuracy_drop: Annotated[
        float | None, Interval(ge=0, le=1), "the most clean accuracy that may be lost"
    ] = None
    file_ratio: Annotated[
        float | None, Interval(gt=0, le=1), "the largest share of the dense file's bytes"
    ] = None
