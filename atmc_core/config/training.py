"""How a job trains."""

from dataclasses import dataclass, fields, replace
from typing import Annotated, ClassVar

from atmc_core.config.names import (
    Averaging,
    DensitySchedule,
    Importance,
    LossName,
    Precision,
    Preset,
    ScheduleName,
)
from atmc_core.config.presets import PRESETS, Effort
from atmc_core.data.augmentation import Augmentation
from atmc_core.errors import InvalidInput
from atmc_core.schema import Interval

_Epochs = Interval(ge=0, le=10_000)


@dataclass(frozen=True)
class Training:
    """How long and how fast; rho and dual_interval are the paper's ADMM settings."""

    SCHEMA_EXTRA: ClassVar[dict[str, object]] = {
        "dependentSchemas": {
            "beta": {"properties": {"loss": {"const": "trades"}}, "required": ["loss"]},
            "clean_weight": {"properties": {"loss": {"const": "mix"}}},
            "averaging_decay": {
                "properties": {"averaging": {"const": "ema"}},
                "required": ["averaging"],
            },
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
    learning_rate: Annotated[float, Interval(gt=0, le=10), "the schedule's peak"] = 0.1
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
        float | None,
        Interval(ge=0, le=0.9999),
        "of ema: share of the average that each step leaves as it is; by default 0.99",
    ] = None
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
    max_grad_norm: Annotated[
        float,
        Interval(gt=0, le=1e9),
        "a gradient that is longer, in all weights together, is shortened to it: adversarial "
        "losses are steep, and a step after a long gradient is often the last",
    ] = 3.0
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
    ] = 0.3
    importance: Annotated[
        Importance,
        "which entries stay under the budget: lamp, those that are large beside the rest of their "
        "layer, so that none is left with too few (Lee et al., 2021); magnitude, the largest of "
        "all, as in the paper",
    ] = "lamp"
    rank_fraction: Annotated[
        float, Interval(ge=0, le=1), "share of the rows that seed the shared basis in V"
    ] = 0.01
    validation_fraction: Annotated[
        float, Interval(gt=0, le=0.5), "share of train held out if there is no validation split"
    ] = 0.1

    def __post_init__(self) -> None:
        if self.beta is not None and self.loss != "trades":
            raise InvalidInput("invalid_value", "beta is of TRADES: set loss to trades", "beta")
        if self.clean_weight is not None and self.loss != "mix":
            message = "clean_weight is of the mix: leave loss at mix"
            raise InvalidInput("invalid_value", message, "clean_weight")
        if self.averaging_decay is not None and self.averaging != "ema":
            message = "averaging_decay is of the moving average: set averaging to ema"
            raise InvalidInput("invalid_value", message, "averaging_decay")
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

    @property
    def ema_decay(self) -> float:
        return self.averaging_decay if self.averaging_decay is not None else 0.99
