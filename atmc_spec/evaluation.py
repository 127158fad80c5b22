"""How a job evaluates models for its report."""

from typing import Annotated

from pydantic import Field, field_validator

from atmc_spec.base import Schema, SpecModel, broken
from atmc_spec.names import AttackName, Certify, EvaluatedSplit, Level
from atmc_spec.values import SMALLEST, Flag, Number, Whole

#: The four attacks that ``autoattack`` stands for, in the order in which they run.
AUTOATTACK: tuple[AttackName, ...] = ("apgd_ce", "apgd_t", "fab_t", "square")
_QUICK: tuple[AttackName, ...] = ("fgsm", "pgd", "pgd_smooth")
_ALL: tuple[AttackName, ...] = (*_QUICK, "pgd_cw", "pgd_dlr", "wrm", "autoattack")
# The fewest classes for which the difference of logits ratio is defined.
_DLR_CLASSES = 3
#: The attacks and the largest number of images of each level of evaluation.
LEVELS: dict[Level, tuple[tuple[AttackName, ...], int]] = {
    "quick": (_QUICK, 1_000),
    "standard": (_ALL, 1_000),
    "full": (_ALL, 10_000),
}


class Evaluation(SpecModel):
    """The attacks of the report; their epsilon and norm are those of the threat.

    The level chooses both the attacks and the number of images; either can be chosen alone, too.
    """

    level: Annotated[
        Level,
        Field(
            description="quick: FGSM, PGD and PGD on smooth backward passes on up to 1,000 images; "
            "standard: all attacks on up to 1,000; full: all attacks on up to 10,000"
        ),
    ] = "quick"
    split: Annotated[
        EvaluatedSplit,
        Field(
            description="the images of the whole report: those of the test split, or validation "
            "images, on which one may choose between jobs and leave the test split untouched"
        ),
    ] = "test"
    attacks: Annotated[
        tuple[AttackName, ...] | None,
        Field(
            min_length=1,
            description="by default the level's; autoattack is apgd_ce, apgd_t, fab_t and square, "
            "each on what the ones before it left standing",
            json_schema_extra={"uniqueItems": True},
        ),
    ] = None
    max_images: Annotated[
        Whole | None,
        Field(
            ge=1,
            le=1_000_000,
            description="images of the split at most, drawn by seed and stratified; by default the "
            "level's",
        ),
    ] = None
    certify: Annotated[
        Certify | None,
        Field(
            description="prove images of an l-infinity threat: ibp by interval bounds, crown by "
            "linear bounds where these prove nothing; by default none at level quick, and at the "
            "others crown, or ibp if crown would take longer than the attacks"
        ),
    ] = None
    pgd_steps: Annotated[Whole, Field(ge=1, le=10_000, description="PGD steps")] = 20
    pgd_restarts: Annotated[Whole, Field(ge=1, le=1000, description="PGD random starts")] = 2
    smooth_restarts: Annotated[
        Whole,
        Field(
            ge=1,
            le=1000,
            description="runs of pgd_smooth, of pgd_steps steps each, which differ in temperature, "
            "loss and step size",
        ),
    ] = 4
    wrm_steps: Annotated[Whole, Field(ge=1, le=10_000, description="WRM steps")] = 15
    wrm_gamma: Annotated[
        Number,
        Field(
            ge=SMALLEST, le=1e6, description="WRM's weight of the loss against the squared length"
        ),
    ] = 1.3
    autoattack_steps: Annotated[
        Whole, Field(ge=1, le=10_000, description="iterations of APGD and FAB, for each target")
    ] = 100
    autoattack_targets: Annotated[
        Whole, Field(ge=1, le=1000, description="classes that APGD-T and FAB-T aim at, at most")
    ] = 9
    square_queries: Annotated[Whole, Field(ge=1, le=1_000_000, description="queries of Square")] = (
        5000
    )
    curve_images: Annotated[
        Whole,
        Field(ge=1, le=1_000_000, description="images of the curve of accuracy against epsilon"),
    ] = 200
    curve_steps: Annotated[
        Whole, Field(ge=1, le=10_000, description="PGD steps at each of its points")
    ] = 10
    batch_size: Annotated[Whole, Field(ge=1, le=65_536, description="images a batch")] = 500
    speed: Annotated[
        Flag,
        Field(
            description="whether the report has the latency of the networks, their multiply-adds "
            "and their memory, measured where the job runs; takes a few seconds"
        ),
    ] = True

    @field_validator("attacks")
    @classmethod
    def _are_different(cls, attacks: tuple[AttackName, ...]) -> tuple[AttackName, ...]:
        if len(set(attacks)) < len(attacks):
            raise broken(f"{', '.join(attacks)} names one twice")
        for member in AUTOATTACK:
            if "autoattack" in attacks and member in attacks:
                raise broken(f"autoattack includes {member}: name one of the two")
        return attacks

    @classmethod
    def rules(cls) -> Schema:
        """Either AutoAttack or its members may be named, but not both."""
        whole = {"contains": {"const": "autoattack"}}
        member = {"contains": {"enum": list(AUTOATTACK)}}
        both = {"properties": {"attacks": {"not": {"allOf": [whole, member]}}}}
        return super().rules() | {"allOf": [both]}

    def attack_names(self, num_classes: int) -> tuple[AttackName, ...]:
        """The attacks that are named, or else those of the level that fit so many classes.

        The difference of logits ratio is not defined for fewer than three classes.
        """
        if self.attacks is not None:
            return self.attacks
        names = LEVELS[self.level][0]
        return tuple(name for name in names if name != "pgd_dlr" or num_classes >= _DLR_CLASSES)

    @property
    def image_limit(self) -> int:
        """The largest number of images of the split that are evaluated."""
        return self.max_images if self.max_images is not None else LEVELS[self.level][1]
