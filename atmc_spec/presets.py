"""The presets of training, and the epochs that each stands for."""

from dataclasses import dataclass

from atmc_spec.names import Averaging, Preset, ScheduleName


@dataclass(frozen=True)
class Effort:
    """What a preset decides: the stages' epochs, the learning rate's schedule and the averaging."""

    robust_epochs: int
    compression_epochs: int
    finish_epochs: int
    schedule: ScheduleName = "cosine"
    averaging: Averaging = "none"


#: ``auto`` starts from the epochs of ``standard``, which planning then scales.
PRESETS: dict[Preset, Effort] = {
    "fast": Effort(robust_epochs=6, compression_epochs=9, finish_epochs=3),
    "standard": Effort(robust_epochs=20, compression_epochs=30, finish_epochs=10),
    # The paper compresses in two phases of 200 epochs, AL0 and then ATMC-32; here they are one
    # stage.
    "paper": Effort(robust_epochs=200, compression_epochs=400, finish_epochs=150),
    "auto": Effort(robust_epochs=20, compression_epochs=30, finish_epochs=10),
}
#: The fields of ``training`` that hold the epochs of the stages, in their order.
EPOCHS = ("robust_epochs", "compression_epochs", "finish_epochs")
