"""What the presets stand for."""

from dataclasses import dataclass

from atmc_spec.names import Averaging, Preset, ScheduleName


@dataclass(frozen=True)
class Effort:
    """What a preset decides: how long each stage trains, and how steps and weights are tempered."""

    robust_epochs: int
    compression_epochs: int
    finish_epochs: int
    schedule: ScheduleName = "cosine"
    averaging: Averaging = "none"


#: ``auto`` starts from the standard one, and then chooses the epochs.
PRESETS: dict[Preset, Effort] = {
    "fast": Effort(robust_epochs=6, compression_epochs=9, finish_epochs=3),
    "standard": Effort(robust_epochs=20, compression_epochs=30, finish_epochs=10),
    # Two phases of 200 epochs each, AL0 and then ATMC-32, are one stage here.
    "paper": Effort(robust_epochs=200, compression_epochs=400, finish_epochs=150),
    "auto": Effort(robust_epochs=20, compression_epochs=30, finish_epochs=10),
}
EPOCHS = ("robust_epochs", "compression_epochs", "finish_epochs")
