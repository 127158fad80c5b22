"""Clean and robust accuracy of any network, by the attacks that a job's report runs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from atmc_core.attacks import ball, frozen_copy
from atmc_core.attacks.base import Model
from atmc_core.evaluation.attacks import ReportAttack, report_attacks
from atmc_core.evaluation.statistics import Estimate, wilson
from atmc_core.randomness import random_generator
from atmc_spec.names import AttackName, Norm


@dataclass(frozen=True)
class Robustness:
    """What a network withstands within one radius.

    Attributes:
        epsilon: the radius.
        clean: accuracy without an attack, with its 95 % interval (Wilson, 1927).
        robust: share of images that are right whatever the attacks do, with its interval: an upper
            bound, since a better attack may come.
        attacks: the share that stands after each attack by itself; a member of AutoAttack tries
            only what those before it left.
        right: which images stand, bool ``[N]``.

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


def evaluate(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epsilons: Sequence[float],
    norm: Norm = "linf",
    attacks: Sequence[AttackName] = ("pgd", "autoattack"),
    batch_size: int = 500,
    seed: int = 0,
    **settings: float,
) -> list[Robustness]:
    """Attack a network and count what stands, at each radius.

    The attacks are a report's (``GET /attacks`` lists them), with its defaults. An image that has
    fallen within a radius counts as fallen within the larger ones, too: their balls hold it.

    Args:
        network: maps images to logits ``[N, classes]``; it is evaluated in evaluation mode and left
            in the mode that it was in.
        images: float ``[N, C, H, W]`` in [0, 1]; any device, each batch goes to the network's.
        labels: the true classes, int64 ``[N]``.
        epsilons: radii of the ball, above 0, for images in [0, 1].
        norm: ``linf`` or ``l2``.
        attacks: names; ``autoattack`` is four.
        batch_size: images at a time.
        seed: of everything that is drawn.
        settings: of the attacks, by the names that they have in a spec's ``evaluation``:
            ``pgd_steps``, ``pgd_restarts``, ``square_queries`` and so on.

    Returns:
        For each radius, in the given order, what was found.

    Raises:
        InvalidInput: for an unknown attack or setting, or a number out of its range.
        ValueError: for no images, images outside [0, 1], or labels of another number.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> images, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 10
        >>> (found,) = evaluate(network, images, labels, attacks=["pgd"], epsilons=[0.1])
        >>> found.robust.value <= found.clean.value
        True
    """
    # The specs need pydantic, which training alone does not.
    from atmc_spec import Evaluation, Threat

    _check_images(images, labels)
    evaluation = Evaluation.read({"attacks": list(attacks), "batch_size": batch_size, **settings})
    threats = {e: Threat.read({"norm": norm, "epsilon": e}) for e in epsilons}
    training = network.training
    try:
        model = frozen_copy(network.eval())
        device = next(network.parameters()).device
        clean = _right(model, images, labels, batch_size, device)
        with torch.no_grad():
            num_classes = model(images[:1].to(device)).shape[1]
        found, standing = {}, clean
        for epsilon in sorted(threats):
            chosen = report_attacks(threats[epsilon], evaluation, num_classes)
            search = _Search(model, images, labels, batch_size, device, seed)
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

    def within(
        self,
        norm: Norm,
        epsilon: float,
        attacks: dict[AttackName, ReportAttack],
        standing: Tensor,
        clean: Tensor,
    ) -> Robustness:
        """Run each attack within one radius, on what stands within the smaller ones."""
        limits, shares, ensemble = ball(norm, epsilon), {}, standing
        worst = standing
        for place, (name, report) in enumerate(attacks.items()):
            tried = ensemble if report.ensemble else standing
            right = tried.clone()
            generator = random_generator(self.device, self.seed, place)
            for part in torch.split(tried.nonzero()[:, 0], self.batch_size):
                images = self.images[part].to(self.device)
                labels = self.labels[part].to(self.device)
                twins = report.attack.run(self.model, images, labels, generator=generator)
                with torch.no_grad():
                    fooled = self.model(twins).argmax(1) != labels
                if report.within_threat:
                    fooled &= limits.size(twins - images) <= limits.epsilon * (1 + 1e-4) + 1e-6
                right[part] = ~fooled.cpu()
            shares[str(name)] = right.float().mean().item()
            if report.ensemble:
                ensemble = right
            if report.within_threat:
                worst = worst & right
        count = len(clean)
        return Robustness(
            epsilon,
            wilson(int(clean.sum()), count),
            wilson(int(worst.sum()), count),
            shares,
            worst,
        )


def _batches(images: Tensor, labels: Tensor, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(torch.split(images, size), torch.split(labels, size), strict=True)


@torch.no_grad()
def _right(
    model: Model, images: Tensor, labels: Tensor, batch_size: int, device: torch.device
) -> Tensor:
    """Which images the model gets right, bool ``[N]`` on the CPU."""
    return torch.cat(
        [
            (model(x.to(device)).argmax(1) == y.to(device)).cpu()
            for x, y in _batches(images, labels, batch_size)
        ]
    )


def _check_images(images: Tensor, labels: Tensor) -> None:
    if images.ndim != 4 or not len(images) or not images.is_floating_point():
        raise ValueError(f"images are {images.dtype} {list(images.shape)}: give float [N, C, H, W]")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"{list(labels.shape)} labels for {len(images)} images")
    if images.amin() < 0 or images.amax() > 1:
        raise ValueError("images must be in [0, 1]: leave their normalisation to the network")
