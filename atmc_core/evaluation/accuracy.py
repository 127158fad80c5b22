"""Clean and robust accuracy of any network, by the attacks that a job's report runs."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor, nn

from atmc_core.attacks import (
    ball,
    check_images,
    check_labels,
    check_logits,
    frozen_copy,
    has_edges,
    is_within,
)
from atmc_core.attacks.base import Model
from atmc_core.evaluation.attacks import (
    ReportAttack,
    answers,
    report_attacks,
    require_finite,
    run_attack,
)
from atmc_core.evaluation.scale import scale_exponent, scaled
from atmc_core.evaluation.statistics import Estimate, wilson
from atmc_core.randomness import random_generator
from atmc_spec.names import AttackName, Norm


@dataclass(frozen=True)
class Robustness:
    """The clean and the robust accuracy of a network within one radius.

    Attributes:
        epsilon: the radius of the ball, in pixel values of images in [0, 1].
        clean: the accuracy without an attack, with its 95 % interval (Wilson, 1927).
        robust: the share of images that are classified correctly under every attack, with its 95 %
            interval. It is an upper bound on the robust accuracy: a better attack may exist.
        attacks: for each attack by name, the share of images that it left standing. The members of
            AutoAttack run one after the other, each on what the ones before it left.
        right: whether each image is classified correctly under every attack, bool ``[N]``.
        right_under: the same under each attack by name, so that attacks can be combined.

    Example:
        >>> import torch
        >>> found = Robustness(0.1, wilson(9, 10), wilson(7, 10), {"pgd": 0.7}, torch.ones(10) > 0)
        >>> f"{found.robust.value:.2f} in [{found.robust.low:.2f}, {found.robust.high:.2f}]"
        '0.70 in [0.40, 0.89]'
    """

    epsilon: float
    clean: Estimate
    robust: Estimate
    attacks: dict[str, float]
    right: Tensor
    right_under: dict[str, Tensor] = field(default_factory=dict, repr=False)


def evaluate(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilons: Sequence[float],
    norm: Norm = "linf",
    attacks: Sequence[AttackName] = ("pgd", "pgd_smooth", "autoattack"),
    batch_size: int = 500,
    seed: int = 0,
    progress: Callable[[str], object] = lambda line: None,
    **settings: float,
) -> list[Robustness]:
    """Measure clean and robust accuracy at each radius.

    The attacks are those of a job's report (``GET /attacks`` lists them), with the same defaults.
    An image that has fallen within a radius counts as fallen within the larger ones, too, because
    their balls contain the same perturbation. Logits of an unusual scale are brought to a usual
    one for the attacks, as in a report (``evaluation.scale``).

    Args:
        network: maps images ``[N, C, H, W]`` to logits ``[N, classes]``. It is evaluated in
            evaluation mode and left in the mode that it was in.
        images: float ``[N, C, H, W]`` in [0, 1], on any device; each batch is moved to the
            network's.
        labels: the true classes, int64 ``[N]``.
        epsilons: the radii of the ball, above 0, in pixel values.
        norm: the ball's norm, ``linf`` or ``l2``.
        attacks: the attacks' names; ``autoattack`` stands for its four members.
        batch_size: the number of images that are attacked at a time.
        seed: seeds everything that is drawn at random.
        progress: is called with a line of text before each batch of each attack.
        settings: further settings of the attacks, under the names that they have in a spec's
            ``evaluation``: ``pgd_steps``, ``pgd_restarts``, ``square_queries`` and so on.

    Returns:
        One ``Robustness`` for each radius, in the given order.

    Raises:
        InvalidInput: for an unknown attack or setting, or a number out of its range; for a network
            whose outputs or gradients are not finite (``non_finite_outputs``).
        ValueError: if there are no images, images are outside [0, 1], labels are not one of the
            network's classes for each image, or the network returns no logits.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> images, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 10
        >>> (found,) = evaluate(network, images, labels, attacks=["pgd"], epsilons=[0.1])
        >>> found.robust.value <= found.clean.value
        True
    """
    # Imported here because the specs need pydantic, which training alone does not.
    from atmc_spec import Evaluation, Threat

    check_images(images)
    check_labels(labels, images)
    evaluation = Evaluation.read({"attacks": list(attacks), "batch_size": batch_size, **settings})
    threats = {e: Threat.read({"norm": norm, "epsilon": e}) for e in epsilons}
    training = network.training
    try:
        model = frozen_copy(network.eval())
        device = next(chain(network.parameters(), network.buffers()), images).device
        with torch.no_grad():
            logits = model(images[:1].to(device))
        check_logits(logits, labels)
        clean = _right(model, images, labels, batch_size, device)
        told = (images[:batch_size].to(device), labels[:batch_size].to(device))
        attacked = scaled(model, scale_exponent(model, *told))
        edges = has_edges(model, told[0])
        found, standing = {}, clean
        for epsilon in sorted(threats):
            chosen = report_attacks(threats[epsilon], evaluation, logits.shape[1], edges=edges)
            search = _Search(attacked, images, labels, batch_size, device, seed, progress)
            found[epsilon] = search.within(threats[epsilon].norm, epsilon, chosen, standing, clean)
            standing = found[epsilon].right
    finally:
        network.train(training)
    return [found[epsilon] for epsilon in epsilons]


@dataclass(frozen=True)
class _Search:
    model: Model
    images: Tensor
    labels: Tensor
    batch_size: int
    device: torch.device
    seed: int
    progress: Callable[[str], object]

    def within(
        self,
        norm: Norm,
        epsilon: float,
        attacks: dict[AttackName, ReportAttack],
        standing: Tensor,
        clean: Tensor,
    ) -> Robustness:
        """Run each attack within one radius.

        Args:
            norm: the ball's norm.
            epsilon: the ball's radius, in pixel values.
            attacks: the attacks by name, in running order.
            standing: the images that stand within the smaller radii, bool ``[N]``; only these are
                attacked.
            clean: the images that are right without an attack, bool ``[N]``.
        """
        limits, worst, ensemble = ball(norm, epsilon), standing, standing
        right_under: dict[str, Tensor] = {}
        for place, (name, report) in enumerate(attacks.items()):
            if report.same_as:
                right_under[name] = right_under[report.same_as]
                continue
            tried = ensemble if report.ensemble else standing
            right = tried.clone()
            generator = random_generator(self.device, self.seed, place)
            rows = tried.nonzero()[:, 0]
            # Splitting nothing gives one empty part, which no attack takes.
            for part in torch.split(rows, self.batch_size) if len(rows) else ():
                self.progress(f"{name}: image {int(part[0])}, {int(right.sum())} standing")
                images = self.images[part].to(self.device)
                labels = self.labels[part].to(self.device)
                adversarial = run_attack(report.attack, self.model, images, labels, generator)
                fooled = ~answers(self.model, adversarial, labels)[1]
                if report.within_threat:
                    fooled &= is_within(limits, limits.size(adversarial - images))
                right[part] = ~fooled.cpu()
            right_under[name] = right
            if report.ensemble:
                ensemble = right
            if report.within_threat:
                worst = worst & right
        count = len(clean)
        return Robustness(
            epsilon,
            wilson(int(clean.sum()), count),
            wilson(int(worst.sum()), count),
            {name: int(right.sum()) / count for name, right in right_under.items()},
            worst,
            right_under,
        )


def _batches(images: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(torch.split(images, size), torch.split(labels, size), strict=True)


@torch.no_grad()
def _right(
    model: Model, images: Tensor, labels: Tensor, batch_size: int, device: torch.device
) -> Tensor:
    """Whether the model classifies each image correctly, bool ``[N]`` on the CPU."""
    found = []
    for chosen, truth in _batches(images, labels, batch_size):
        logits = model(chosen.to(device))
        require_finite(logits)
        found.append((logits.argmax(1) == truth.to(device)).cpu())
    return torch.cat(found)
