"""Clean and robust accuracy on the test split, image by image."""

from typing import Any

import torch
from torch import Tensor

from atmc_core.attacks import FGSM, PGD, Attack, ball
from atmc_core.config import Evaluation, Threat
from atmc_core.data import Split
from atmc_core.model import Classifier
from atmc_core.training import frozen_model, random_generator


def report_attacks(threat: Threat, evaluation: Evaluation) -> dict[str, Attack]:
    """The attacks of the report by name; PGD's step is 2.5 epsilon / steps (Madry et al., 2018)."""
    limits = ball(threat.norm, threat.epsilon)
    pgd = PGD(limits, evaluation.pgd_steps, 2.5 * threat.epsilon / evaluation.pgd_steps)
    return {"fgsm": FGSM(limits), "pgd": pgd.repeat(evaluation.pgd_restarts)}


class Evaluator:
    """Evaluates a classifier one batch at a time.

    Attributes:
        hits: for ``clean`` and each attack, which images the model still gets right, bool ``[N]``.
    """

    def __init__(
        self,
        classifier: Classifier,
        split: Split,
        threat: Threat,
        evaluation: Evaluation,
        seed: int,
    ) -> None:
        self.model = frozen_model(classifier.eval(), {})
        self.split = split
        self.attacks = report_attacks(threat, evaluation)
        self.batch_size = evaluation.batch_size
        self.seed = seed
        names = ("clean", *self.attacks)
        self.hits = {name: torch.zeros(len(split), dtype=torch.bool) for name in names}

    @property
    def num_batches(self) -> int:
        return -(-len(self.split) // self.batch_size)

    def batch(self, index: int) -> dict[str, float]:
        """Evaluate batch ``index``; returns its accuracies."""
        chosen = slice(index * self.batch_size, (index + 1) * self.batch_size)
        images, labels = self.split.batch(chosen)
        generator = random_generator(labels.device, self.seed, index)
        hits = {"clean": self._right(images, labels)}
        for name, attack in self.attacks.items():
            adversarial = attack.run(self.model, images, labels, generator=generator)
            hits[name] = self._right(adversarial, labels)
        for name, right in hits.items():
            self.hits[name][chosen] = right.cpu()
        return {f"{name}_accuracy": right.float().mean().item() for name, right in hits.items()}

    @torch.no_grad()
    def _right(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.model(images).argmax(1) == labels

    def figures(self) -> dict[str, dict[str, Any]]:
        """Accuracy, correct images and their number: clean, for each attack, and for all together.

        ``robust`` is the per-image worst case: right on the clean image and under every attack.
        """
        robust = torch.stack(list(self.hits.values())).all(0)
        return {
            name: {
                "accuracy": int(right.sum()) / len(right),
                "correct": int(right.sum()),
                "count": len(right),
            }
            for name, right in {**self.hits, "robust": robust}.items()
        }
