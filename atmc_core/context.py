"""What the stages of one job share."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from atmc_core.attacks import Attack
from atmc_core.config import JobSpec, Target
from atmc_core.data import DataSet, Split
from atmc_core.evaluation_plan import evaluated_indices
from atmc_core.factorization import dense_weights
from atmc_core.methods import METHODS, System
from atmc_core.model import Classifier, Normalization
from atmc_core.training import training_attack

#: Places in the run, for the random numbers.
DENSE, COMPRESS, FINISH, SELECT, REPORT = range(5)


@dataclass(frozen=True)
class Context:
    """What all stages of a job share; ``classifier`` is the uploaded one at the start."""

    spec: JobSpec
    data: DataSet
    classifier: Classifier
    architecture: str
    num_classes: int
    normalization: Normalization
    artifact: Path

    @property
    def num_weights(self) -> int:
        """N: the dense conv and linear weights."""
        return sum(weight.numel() for weight, _ in dense_weights(self.classifier.network).values())

    @property
    def target(self) -> Target:
        """Of a method that compresses; a spec for one always has it."""
        assert self.spec.target is not None
        return self.spec.target

    @property
    def k(self) -> int:
        return self.target.budget(self.num_weights)

    @property
    def report_seed(self) -> int:
        """Of the evaluation."""
        return self.spec.seed + REPORT

    @cached_property
    def indices(self) -> Tensor:
        """The evaluated images of the test split, on the CPU."""
        return evaluated_indices(self.data.test.labels, self.spec.evaluation, self.report_seed)

    @cached_property
    def evaluated(self) -> Split:
        """Those images."""
        test = self.data.test
        index = self.indices.to(test.labels.device)
        return Split(test.images[index], test.labels[index])

    @property
    def system(self) -> System:
        return METHODS[self.spec.method]

    @property
    def attack(self) -> Attack | None:
        """Of training, and of the choice between epochs."""
        return training_attack(self.spec.threat) if self.system.adversarial else None
