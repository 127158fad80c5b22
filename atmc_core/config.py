"""What a caller may ask of the method: typed, ranged, with defaults. The names are the paper's."""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from atmc_core.errors import InvalidInput
from atmc_core.schema import Fraction, Interval, json_schema

Bits = Literal[1, 2, 3, 4, 5, 6, 7, 8, 16, 32]
Norm = Literal["linf", "l2"]
Method = Literal["nap", "da", "ap", "al0", "alr", "atmc", "evaluate"]
AttackName = Literal[
    "fgsm",
    "pgd",
    "pgd_cw",
    "pgd_dlr",
    "wrm",
    "autoattack",
    "apgd_ce",
    "apgd_t",
    "fab_t",
    "square",
]
Level = Literal["quick", "standard", "full"]

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
class Target:
    """How small: k non-zeros over all of U, V, C, each stored in b bits.

    Exactly one of ``k`` and ``density`` is given; ``bits`` 1 to 8 mean codebooks of 2^b values, 16
    means float16 values and 32 means no quantisation.
    """

    SCHEMA_EXTRA: ClassVar[dict[str, object]] = {
        "oneOf": [{"required": ["k"]}, {"required": ["density"]}]
    }

    bits: Annotated[Bits, "bits a non-zero: 1 to 8 a codebook, 16 float16, 32 float32"]
    k: Annotated[int | None, "number of non-zeros of U, V, C together"] = None
    density: Annotated[float | None, Interval(gt=0, le=1), "k over the dense weights"] = None

    def __post_init__(self) -> None:
        if (self.k is None) == (self.density is None):
            raise InvalidInput("invalid_value", "give exactly one of k and density")

    def budget(self, num_weights: int) -> int:
        """k for a network of ``num_weights`` dense conv and linear weights.

        Raises:
            InvalidInput: if k is 0 or above ``num_weights``.
        """
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


@dataclass(frozen=True)
class Threat:
    """The perturbations that the model must withstand, and the PGD that it is trained with."""

    norm: Annotated[Norm, "the norm of the ball"]
    epsilon: Annotated[
        float,
        Interval(gt=0, le=1),
        Fraction('images are in [0, 1], so for {value} grey levels write "{value}/255"'),
        'its radius, for images in [0, 1]: a number, or a fraction such as "8/255"',
    ]
    steps: Annotated[int, Interval(ge=1, le=1000), "PGD steps in training"] = 7
    step_size: Annotated[
        float | None, Interval(gt=0, le=1), "of those steps; by default 1.25 epsilon / steps"
    ] = None

    @property
    def training_step_size(self) -> float:
        return self.step_size if self.step_size is not None else 1.25 * self.epsilon / self.steps


@dataclass(frozen=True)
class Training:
    """How long and how fast; rho and dual_interval are the paper's ADMM settings."""

    robust_epochs: Annotated[
        int, Interval(ge=0, le=10_000), "adversarial training of the dense network"
    ] = 20
    compression_epochs: Annotated[int, Interval(ge=1, le=10_000), "ADMM under both constraints"] = (
        30
    )
    finish_epochs: Annotated[
        int, Interval(ge=0, le=10_000), "fine-tuning with support and assignments frozen"
    ] = 10
    batch_size: Annotated[int, Interval(ge=2, le=65_536), "images a step"] = 128
    learning_rate: Annotated[float, Interval(gt=0, le=10), "peak, decayed by a cosine"] = 0.05
    momentum: Annotated[float, Interval(ge=0, le=0.999), "of SGD, Nesterov"] = 0.9
    weight_decay: Annotated[float, Interval(ge=0, le=1), "of SGD"] = 1e-4
    rho: Annotated[float, Interval(gt=0, le=100), "weight of the ADMM penalty"] = 0.1
    dual_interval: Annotated[int, Interval(ge=1, le=10_000), "steps between dual updates"] = 10
    shrink_fraction: Annotated[
        float,
        Interval(ge=0, le=0.95),
        "share of the compression epochs in which the budget shrinks from dense to k",
    ] = 0.6
    rank_fraction: Annotated[
        float, Interval(ge=0, le=1), "share of the rows that seed the shared basis in V"
    ] = 0.25
    validation_fraction: Annotated[
        float, Interval(gt=0, le=0.5), "share of train held out if there is no validation split"
    ] = 0.1


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


@dataclass(frozen=True)
class JobSpec:
    """One job: a method, a target, a threat, and how to train and evaluate.

    ``evaluate`` alone takes no target, and nothing that is about training.
    """

    method: Annotated[Method, "the recipe"]
    threat: Threat
    target: Target | None = None
    training: Training = field(default_factory=Training)
    evaluation: Annotated[Evaluation, "the report's attacks"] = field(default_factory=Evaluation)
    accept: Annotated[Accept, "thresholds for the report's verdict"] = field(default_factory=Accept)
    seed: Annotated[int, Interval(ge=0, le=2**31 - 1), "of every random choice"] = 0

    def __post_init__(self) -> None:
        if self.method != "evaluate":
            if self.target is None:
                raise InvalidInput("missing_field", "target is required", "target")
            return
        needless = {
            "target": self.target is not None,
            "training": self.training != Training(),
            "threat.steps": self.threat.steps != Threat.steps,
            "threat.step_size": self.threat.step_size is not None,
            "accept.clean_accuracy_drop": self.accept.clean_accuracy_drop is not None,
            "accept.file_ratio": self.accept.file_ratio is not None,
        }
        for param, given in needless.items():
            if given:
                message = f"method evaluate neither trains nor compresses: leave {param} out"
                raise InvalidInput("invalid_value", message, param)


def spec_schema(method: Method) -> dict[str, Any]:
    """The JSON Schema of the job specs of one method."""
    schema = json_schema(JobSpec)
    properties = schema["properties"]
    properties["method"] |= {"enum": [method]}
    if method != "evaluate":
        return schema | {"required": [*schema["required"], "target"]}
    for name in ("target", "training"):
        del properties[name]
    for name in ("steps", "step_size"):
        del properties["threat"]["properties"][name]
    for name in ("clean_accuracy_drop", "file_ratio"):
        del properties["accept"]["properties"][name]
    return schema
