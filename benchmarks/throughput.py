"""The time of ATMC compared with plain adversarial training: LeNet, PGD-16, batch 256, 8 bits.

    python -m benchmarks.throughput [--rounds 5]

Both sides compute 16 input gradients and one training step on clean and adversarial images. The
dense side is the plain network, as fast as eager PyTorch allows. ATMC's side adds the composition
of W, the penalty, the l0 projection after every step, and the codebook projections every tenth
step. A round is ten steps of each side in turn, so that it has one codebook projection. A third
side is ATMC's with smooth backward passes in the attack, as a job trains by default. Prints
``overhead_ratio`` (ATMC's time divided by the dense side's, both with plain backward passes),
``smooth_ratio`` (ATMC's time with smooth ones divided by that with plain ones) and the images per
second of all sides.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atmc_core.attacks import PGD
from atmc_core.factors.splitting import interpolative
from atmc_core.factors.views import dense_weights
from atmc_core.networks.architectures import build
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.solver.admm import AdmmOptions, AdmmWeights
from atmc_core.training.step import Step
from atmc_core.training.trainer import adversarial_step, training_attack
from benchmarks.timing import interleaved, print_result

BATCH, STEPS_A_ROUND, LEARNING_RATE = 256, 10, 0.01
# One in a hundred of LeNet's weights.
BUDGET = 4_305
ATTACK = training_attack("linf", 76 / 255, 16)
OPTIONS = AdmmOptions(shrink_fraction=0, dual_interval=STEPS_A_ROUND)


def plain_step(net: nn.Module, images: Tensor, labels: Tensor, attack: PGD) -> Callable[[], None]:
    """A function that runs a step of plain PGD training on clean and adversarial images."""
    parameters = list(net.parameters())
    optimizer = torch.optim.SGD(
        parameters, lr=LEARNING_RATE, momentum=0.9, weight_decay=1e-4, nesterov=True, fused=True
    )
    epsilon, step_size = attack.ball.epsilon, attack.step_size
    lower, upper = (images - epsilon).clamp_(0, 1), (images + epsilon).clamp_(0, 1)

    def step() -> None:
        net.eval()
        for parameter in parameters:
            parameter.requires_grad_(False)
        adversarial = torch.empty_like(images).uniform_(-epsilon, epsilon).add_(images).clamp_(0, 1)
        for _ in range(attack.steps):
            adversarial.requires_grad_()
            loss = F.cross_entropy(net(adversarial), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, adversarial)
            adversarial = adversarial.detach().add_(gradient.sign_(), alpha=step_size)
            adversarial = torch.clamp_(adversarial, lower, upper)
        net.train()
        for parameter in parameters:
            parameter.requires_grad_(True)
        loss = F.cross_entropy(net(torch.cat([images, adversarial])), labels.repeat(2))
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def atmc_side(images: Tensor, labels: Tensor, attack: PGD) -> Callable[[], None]:
    """A function that runs a round of a job's steps at a budget of one weight in a hundred."""
    classifier = Classifier(build("lenet", 10), Normalization(), channels=1)
    factors = interpolative(dense_weights(classifier.network))
    net = AdmmWeights(classifier.network, factors, k=BUDGET, bits=8, steps=1, options=OPTIONS)
    step, generator = Step(classifier, attack), torch.Generator().manual_seed(0)
    return lambda: _repeat(
        lambda: adversarial_step(net, step, images, labels, LEARNING_RATE, generator)
    )


def _repeat(step: Callable[[], object]) -> None:
    for _ in range(STEPS_A_ROUND):
        step()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    images, labels = torch.rand(BATCH, 1, 28, 28), torch.randint(0, 10, (BATCH,))
    network = build("lenet", 10).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    dense_step = plain_step(network, images, labels, ATTACK)
    sides = {
        "dense": lambda: _repeat(dense_step),
        "atmc": atmc_side(images, labels, replace(ATTACK, temperature=None)),
        "smooth": atmc_side(images, labels, ATTACK),
    }
    seconds = interleaved(sides, arguments.rounds)
    print_result(
        {
            "overhead_ratio": seconds["atmc"] / seconds["dense"],
            "smooth_ratio": seconds["smooth"] / seconds["atmc"],
            "images_per_s": BATCH * STEPS_A_ROUND / seconds["atmc"],
            "smooth_images_per_s": BATCH * STEPS_A_ROUND / seconds["smooth"],
            "dense_images_per_s": BATCH * STEPS_A_ROUND / seconds["dense"],
            "rounds": arguments.rounds,
            "threads": arguments.threads,
        }
    )


if __name__ == "__main__":
    main()
