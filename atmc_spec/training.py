"""How a job trains."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Annotated, ClassVar

from pydantic import Field

from atmc_spec import defaults
from atmc_spec.base import SpecModel
from atmc_spec.names import (
    Averaging,
    DensitySchedule,
    Importance,
    LossName,
    Optimizer,
    Precision,
    Preset,
    ScheduleName,
)
from atmc_spec.presets import PRESETS, Effort
from atmc_spec.values import SMALLEST, Flag, Number, Whole


class Training(SpecModel):
    """How long, with which loss and optimiser, and under which solver's settings a job trains."""

    depends: ClassVar[Mapping[str, tuple[str, str]]] = {
        "time_budget_s": ("preset", "auto"),
        "clean_weight": ("loss", "mix"),
        "teacher_weight": ("loss", "mix"),
        "beta": ("loss", "trades"),
        "averaging_decay": ("averaging", "ema"),
    }

    preset: Annotated[
        Preset,
        Field(
            description="sets the epochs of all stages, schedule and averaging where they are "
            "left out; auto chooses the epochs by the size of the data and by "
            "time_budget_s"
        ),
    ] = "standard"
    time_budget_s: Annotated[
        Number | None,
        Field(
            ge=SMALLEST,
            le=30 * 86_400,
            description="with preset auto: seconds that all training together should take",
        ),
    ] = None
    robust_epochs: Annotated[
        Whole | None,
        Field(
            ge=0,
            le=10_000,
            description="adversarial training of the dense network; by default the preset's, or 0 "
            "if the upload is found to be robust already",
        ),
    ] = None
    compression_epochs: Annotated[
        Whole | None,
        Field(
            ge=1, le=10_000, description="training under the constraints; by default the preset's"
        ),
    ] = None
    finish_epochs: Annotated[
        Whole | None,
        Field(
            ge=0,
            le=10_000,
            description="fine-tuning with support and assignments frozen; by default the preset's",
        ),
    ] = None
    batch_size: Annotated[Whole, Field(ge=2, le=65_536, description="images a step")] = 128
    learning_rate: Annotated[
        Number | None,
        Field(
            ge=SMALLEST,
            le=10,
            description="the schedule's peak; by default 0.1 of sgd, 0.002 of adam",
        ),
    ] = None
    schedule: Annotated[
        ScheduleName | None,
        Field(
            description="of the learning rate: a cosine, or a tenth from half of the steps on and "
            "a hundredth from three quarters on; by default the preset's"
        ),
    ] = None
    loss: Annotated[
        LossName,
        Optimizer,
        Field(
            description="mix: clean and adversarial cross-entropy, by clean_weight; trades: clean "
            "cross-entropy plus beta times the divergence of the adversarial outputs "
            "(Zhang et al., 2019); ibp: clean cross-entropy and that of the worst logits which "
            "interval bounds allow, for proofs (Gowal et al., 2018), without an attack"
        ),
    ] = "mix"
    clean_weight: Annotated[
        Number | None,
        Field(
            ge=0,
            le=0.9,
            description="of the clean images in the mix; by default 0.5, the paper's; 0 trains on "
            "adversarial images alone, which is faster and more robust, at some clean "
            "accuracy",
        ),
    ] = None
    beta: Annotated[
        Number | None,
        Field(ge=SMALLEST, le=1000, description="TRADES' weight of the divergence; by default 6"),
    ] = None
    teacher_weight: Annotated[
        Number | None,
        Field(
            ge=0,
            le=1,
            description="in the mix, by default 1: of the trained dense network as a teacher of "
            "the compressed one. Its probabilities for the clean image are so much of the label "
            "that is learned and attacked, the true class is the rest (Zi et al., 2021)",
        ),
    ] = None
    averaging: Annotated[
        Averaging | None,
        Field(
            description="ema: what is kept is an exponential moving average of the weights; swa: "
            "their mean over the last quarter of each stage's steps; by default the "
            "preset's"
        ),
    ] = None
    averaging_decay: Annotated[
        Number | None,
        Field(
            ge=0,
            le=0.9999,
            description="of ema: share of the average that each step leaves as it is; by default "
            "0.99",
        ),
    ] = None
    flip: Annotated[
        Flag,
        Field(
            description="mirror every other training image, by chance, left to right: for "
            "photographs, not for digits or letters"
        ),
    ] = False
    shift: Annotated[
        Whole,
        Field(
            ge=0,
            le=1024,
            description="move each training image by up to so many pixels each way, black coming "
            "in; 4 is usual for 32x32",
        ),
    ] = 0
    optimizer: Annotated[
        Optimizer | None,
        Field(description="by default adam with loss ibp, and else sgd, as in the paper"),
    ] = None
    momentum: Annotated[
        Number, Field(ge=0, le=0.999, description="of SGD, Nesterov; of Adam beta 1")
    ] = defaults.MOMENTUM
    max_grad_norm: Annotated[
        Number,
        Field(
            ge=SMALLEST,
            le=1e9,
            description="a gradient that is longer, in all weights together, is shortened to it: "
            "adversarial losses are steep, and a step after a long gradient is often "
            "the last",
        ),
    ] = defaults.MAX_GRAD_NORM
    weight_decay: Annotated[Number, Field(ge=0, le=1, description="of SGD")] = defaults.WEIGHT_DECAY
    precision: Annotated[
        Precision,
        Field(
            description="of the passes in training, the weights themselves and all evaluation are "
            "float32: auto is bfloat16 on a GPU that has it"
        ),
    ] = "auto"
    rho: Annotated[Number, Field(ge=SMALLEST, le=100, description="weight of the ADMM penalty")] = (
        defaults.RHO
    )
    dual_interval: Annotated[
        Whole, Field(ge=1, le=10_000, description="steps between dual updates")
    ] = defaults.DUAL_INTERVAL
    density_schedule: Annotated[
        DensitySchedule,
        Field(description="how the budget shrinks from dense to k; none: it is k from the start"),
    ] = defaults.DENSITY_SCHEDULE
    shrink_fraction: Annotated[
        Number,
        Field(
            ge=0, le=0.95, description="share of the compression epochs in which the budget shrinks"
        ),
    ] = defaults.SHRINK_FRACTION
    importance: Annotated[
        Importance,
        Field(
            description="which entries stay under the budget: lamp, those that are large beside "
            "the rest of their layer, so that none is left with too few (Lee et al., "
            "2021); magnitude, the largest of all, as in the paper"
        ),
    ] = defaults.IMPORTANCE
    rank_fraction: Annotated[
        Number, Field(ge=0, le=1, description="share of the rows that form the basis of U and V")
    ] = defaults.RANK_FRACTION
    validation_fraction: Annotated[
        Number,
        Field(
            ge=SMALLEST,
            le=0.5,
            description="share of train held out if there is no validation split",
        ),
    ] = 0.1

    def effort(self) -> Effort:
        """What the preset decides, except where the spec sets a field itself."""
        names = [field.name for field in fields(Effort)]
        explicit = {name: getattr(self, name) for name in names}
        return replace(PRESETS[self.preset], **{k: v for k, v in explicit.items() if v is not None})

    @property
    def mix_clean_weight(self) -> float:
        """The weight of clean images in the mixed loss: the one asked for, or the default."""
        return self.clean_weight if self.clean_weight is not None else defaults.CLEAN_WEIGHT

    @property
    def optimizer_name(self) -> Optimizer:
        """The optimiser: the one asked for, or the default of the loss."""
        return self.optimizer or ("adam" if self.loss == "ibp" else "sgd")

    @property
    def peak_rate(self) -> float:
        """The highest learning rate: the one asked for, or the default of the optimiser."""
        adam = self.optimizer_name == "adam"
        return self.learning_rate or (defaults.ADAM_RATE if adam else defaults.LEARNING_RATE)

    @property
    def mix_teacher_weight(self) -> float:
        """The teacher's weight: the one asked for, or the default; 0 with another loss."""
        if self.loss != "mix" or "teacher_weight" in self.unused:
            return 0.0
        asked = self.teacher_weight
        return asked if asked is not None else defaults.TEACHER_WEIGHT

    @property
    def trades_beta(self) -> float:
        """The weight of the divergence in the TRADES loss: the one asked for, or the default."""
        return self.beta if self.beta is not None else defaults.TRADES_BETA

    @property
    def ema_decay(self) -> float:
        """The decay of the exponential moving average: the one asked for, or the default."""
        return self.averaging_decay if self.averaging_decay is not None else defaults.EMA_DECAY
