"""What a caller may ask of the method: typed, ranged, with defaults. The names are the paper's."""

from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, ClassVar, Literal

from atmc_core.data.augmentation import Augmentation
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
Structure = Literal["element", "channel"]
Preset = Literal["fast", "standard", "paper", "auto"]
LossName = Literal["mix", "trades"]
ScheduleName = Literal["cosine", "step"]
Averaging = Literal["none", "ema", "swa"]
DensitySchedule = Literal["cubic", "linear", "none"]
Precision = Literal["auto", "float32", "bfloat16"]

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
class Effort:
    """What a preset decides: how long each stage trains, and how steps and weights are tempered."""

    robust_epochs: int
    compression_epochs: int
    finish_epochs: int
    schedule: ScheduleName = "cosine"
    averaging: Averaging = "none"


#: ``auto`` starts from the standard one, and then chooses the epochs (see ``planning``).
PRESETS: dict[Preset, Effort] = {
    "fast": Effort(robust_epochs=6, compression_epochs=9, finish_epochs=3),
    "standard": Effort(robust_epochs=20, compression_epochs=30, finish_epochs=10),
    # Two phases of 200 epochs each, AL0 and then ATMC-32, are one stage here.
    "paper": Effort(robust_epochs=200, compression_epochs=400, finish_epochs=150),
    "auto": Effort(robust_epochs=20, compression_epochs=30, finish_epochs=10),
}
EPOCHS = ("robust_epochs", "compression_epochs", "finish_epochs")

_Epochs = Interval(ge=0, le=10_000)


@dataclass(frozen=True)
class Training:
    """How long and how fast; rho and dual_interval are the paper's ADMM settings."""

    SCHEMA_EXTRA: ClassVar[dict[str, object]] = {
        "dependentSchemas": {
            "beta": {"properties": {"loss": {"const": "trades"}}, "required": ["loss"]},
            "clean_weight": {"properties": {"loss": {"const": "mix"}}},
            "time_budget_s": {"properties": {"preset": {"const": "auto"}}, "required": ["preset"]},
        }
    }

    preset: Annotated[
        Preset,
        "sets the epochs of all stages, schedule and averaging where they are left out; auto "
        "chooses the epochs by the size of the data and by time_budget_s",
    ] = "standard"
    time_budget_s: Annotated[
        float | None,
        Interval(gt=0, le=30 * 86_400),
        "with preset auto: seconds that all training together should take",
    ] = None
    robust_epochs: Annotated[
        int | None,
        _Epochs,
        "adversarial training of the dense network; by default the preset's, or 0 if the upload "
        "is found to be robust already",
    ] = None
    compression_epochs: Annotated[
        int | None,
        Interval(ge=1, le=10_000),
        "training under the constraints; by default the preset's",
    ] = None
    finish_epochs: Annotated[
        int | None,
        _Epochs,
        "fine-tuning with support and assignments frozen; by default the preset's",
    ] = None
    batch_size: Annotated[int, Interval(ge=2, le=65_536), "images a step"] = 128
    learning_rate: Annotated[float, Interval(gt=0, le=10), "the schedule's peak"] = 0.05
    schedule: Annotated[
        ScheduleName | None,
        "of the learning rate: a cosine, or a tenth from half of the steps on and a hundredth "
        "from three quarters on; by default the preset's",
    ] = None
    loss: Annotated[
        LossName,
        "mix: clean and adversarial cross-entropy, by clean_weight; trades: clean cross-entropy "
        "plus beta times the divergence of the adversarial outputs (Zhang et al., 2019)",
    ] = "mix"
    clean_weight: Annotated[
        float | None,
        Interval(ge=0, le=0.9),
        "of the clean images in the mix; by default 0.5, the paper's; 0 trains on adversarial "
        "images alone, which is faster and more robust, at some clean accuracy",
    ] = None
    beta: Annotated[
        float | None, Interval(gt=0, le=1000), "TRADES' weight of the divergence; by default 6"
    ] = None
    averaging: Annotated[
        Averaging | None,
        "ema: what is kept is an exponential moving average of the weights; swa: their mean over "
        "the last quarter of each stage's steps; by default the preset's",
    ] = None
    averaging_decay: Annotated[
        float,
        Interval(ge=0, le=0.9999),
        "of ema: share of the average that each step leaves as it is",
    ] = 0.99
    flip: Annotated[
        bool,
        "mirror every other training image, by chance, left to right: for photographs, not for "
        "digits or letters",
    ] = False
    shift: Annotated[
        int,
        Interval(ge=0, le=1024),
        "move each training image by up to so many pixels each way, black coming in; 4 is usual "
        "for 32x32",
    ] = 0
    momentum: Annotated[float, Interval(ge=0, le=0.999), "of SGD, Nesterov"] = 0.9
    weight_decay: Annotated[float, Interval(ge=0, le=1), "of SGD"] = 1e-4
    precision: Annotated[
        Precision,
        "of the passes in training, the weights themselves and all evaluation are float32: "
        "auto is bfloat16 on a GPU that has it",
    ] = "auto"
    rho: Annotated[float, Interval(gt=0, le=100), "weight of the ADMM penalty"] = 0.1
    dual_interval: Annotated[int, Interval(ge=1, le=10_000), "steps between dual updates"] = 10
    density_schedule: Annotated[
        DensitySchedule, "how the budget shrinks from dense to k; none: it is k from the start"
    ] = "cubic"
    shrink_fraction: Annotated[
        float,
        Interval(ge=0, le=0.95),
        "share of the compression epochs in which the budget shrinks",
    ] = 0.6
    rank_fraction: Annotated[
        float, Interval(ge=0, le=1), "share of the rows that seed the shared basis in V"
    ] = 0.05
    validation_fraction: Annotated[
        float, Interval(gt=0, le=0.5), "share of train held out if there is no validation split"
    ] = 0.1

    def __post_init__(self) -> None:
        if self.beta is not None and self.loss != "trades":
            raise InvalidInput("invalid_value", "beta is of TRADES: set loss to trades", "beta")
        if self.clean_weight is not None and self.loss != "mix":
            message = "clean_weight is of the mix: leave loss at mix"
            raise InvalidInput("invalid_value", message, "clean_weight")
        if self.time_budget_s is not None and self.preset != "auto":
            message = "a time budget is for preset auto, which fits the epochs to it"
            raise InvalidInput("invalid_value", message, "time_budget_s")

    def effort(self) -> Effort:
        """The preset's, with what is set explicitly in its place."""
        names = [field.name for field in fields(Effort)]
        explicit = {name: getattr(self, name) for name in names}
        return replace(PRESETS[self.preset], **{k: v for k, v in explicit.items() if v is not None})

    @property
    def augmentation(self) -> Augmentation:
        return Augmentation(self.flip, self.shift)

    @property
    def mix_clean_weight(self) -> float:
        return self.clean_weight if self.clean_weight is not None else 0.5

    @property
    def trades_beta(self) -> float:
        return self.beta if self.beta is not None else 6.0


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
            self._check_method()
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

    def _check_method(self) -> None:
        """Refuse what this method would ignore."""
        if self.target and self.target.structure == "channel" and self.method not in CHANNELS:
            message = f"method {self.method} knows no channels: leave structure out"
            raise InvalidInput("invalid_value", message, "target.structure")
        for name in UNUSED.get(self.method, ()):
            self._refuse_changed(name, f"method {self.method} has no use for it")
        if self.target and self.target.bits > 8:
            for name in OF_CODEBOOKS:
                self._refuse_changed(
                    name, f"without codebooks ({self.target.bits} bits) it is idle"
                )

    def _refuse_changed(self, name: str, why: str) -> None:
        if getattr(self.training, name) != getattr(Training, name):
            raise InvalidInput("invalid_value", f"{why}: leave {name} out", f"training.{name}")


#: The methods that can drop whole channels.
CHANNELS: tuple[Method, ...] = ("nap", "ap", "al0", "atmc")
#: Training options of codebooks alone, so of 1 to 8 bits.
OF_CODEBOOKS = ("rho", "dual_interval")
_OF_MOVING_SUPPORTS = (*OF_CODEBOOKS, "density_schedule", "shrink_fraction", "rank_fraction")
#: Training options that a method would ignore.
UNUSED: dict[Method, tuple[str, ...]] = {
    "nap": ("loss", "clean_weight", *_OF_MOVING_SUPPORTS),
    "da": ("compression_epochs", "finish_epochs", *_OF_MOVING_SUPPORTS),
    "ap": _OF_MOVING_SUPPORTS,
    "alr": _OF_MOVING_SUPPORTS,
    "al0": ("rank_fraction",),
}


def _unchanged(name: str) -> dict[str, Any]:
    return {"const": getattr(Training, name)}


def spec_schema(method: Method) -> dict[str, Any]:
    """The JSON Schema of the job specs of one method."""
    schema = json_schema(JobSpec)
    properties = schema["properties"]
    properties["method"] |= {"enum": [method]}
    if method != "evaluate":
        if method not in CHANNELS:
            properties["target"]["properties"]["structure"]["enum"] = ["element"]
        for name in UNUSED.get(method, ()):
            properties["training"]["properties"][name] |= _unchanged(name)
        idle = {"properties": {name: _unchanged(name) for name in OF_CODEBOOKS}}
        bits = {"properties": {"bits": {"enum": [16, 32]}}}
        without_codebooks = {
            "if": {"properties": {"target": bits}},
            "then": {"properties": {"training": idle}},
        }
        required = [*schema["required"], "target"]
        return schema | {"required": required, "allOf": [without_codebooks]}
    for name in ("target", "training"):
        del properties[name]
    for name in ("steps", "step_size"):
        del properties["threat"]["properties"][name]
    for name in ("clean_accuracy_drop", "file_ratio"):
        del properties["accept"]["properties"][name]
    return schema
