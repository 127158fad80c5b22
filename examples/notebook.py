# %% [markdown]
# # A network of your own, a quarter of its weights, 4 bits each
#
# The digits of scikit-learn, a network that no library knows, a loop that you see: trained against
# attacks, compressed by ATMC, read back from its file and attacked. Under a minute on two cores.
# Every cell runs in order; `python -m examples.notebook` runs them all and writes the picture.

# %%
import tempfile
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from atmc_core import PGD, Compressor, adversarial_loss, evaluate, load

matplotlib.use("agg")  # a notebook shows pictures whatever this says
torch.manual_seed(0)
DENSITY, BITS, EPSILON = 0.25, 4, 0.1

# %% [markdown]
# Images are float `[N, C, H, W]` in [0, 1]; the last 360 are for testing.

# %%
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32).div(16).unsqueeze(1)
labels = torch.tensor(digits.target)
train, test = slice(0, -360), slice(-360, None)


class Mine(nn.Module):
    """Two convolutions with a shortcut, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 24, 3, padding=1)
        self.second = nn.Conv2d(24, 24, 3, padding=1)
        self.last = nn.Linear(24 * 16, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = torch.relu(self.first(images))
        features = torch.relu(features + self.second(features))
        return self.last(nn.functional.max_pool2d(features, 2).flatten(1))  # type: ignore[no-any-return]


def batches(epochs: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches of 128."""
    for _ in range(epochs):
        for index in torch.split(torch.randperm(len(labels[train])), 128):
            yield images[train][index], labels[train][index]


BATCHES = len(list(batches(1)))
ATTACK = PGD("linf", EPSILON)

# %% [markdown]
# ## Train against attacks
# Any training will do; a robust network is the best start.

# %%
network = Mine()
epochs = 12
optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=epochs * BATCHES)
for x, y in batches(epochs):
    optimizer.zero_grad()
    adversarial_loss(network, x, y, ATTACK).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    schedule.step()
radii = [0.05, EPSILON, 0.15, 0.2]
dense = evaluate(network, images[test], labels[test], attacks=["pgd"], epsilons=radii)

# %% [markdown]
# ## Compress
# The same loop, with the compressor as its optimiser. `freeze` begins the end game: from there on
# there are at most `k` non-zeros, and at most 2^bits values in each of U, V and C.

# %%
epochs, last = 16, 4
compressor = Compressor(network, density=DENSITY, bits=BITS, steps=epochs * BATCHES)
cosine = torch.optim.lr_scheduler.CosineAnnealingLR(compressor, (epochs + last) * BATCHES)
for step, (x, y) in enumerate(batches(epochs + last)):
    if step == epochs * BATCHES:
        compressor.freeze()
    adversarial_loss(network, x, y, ATTACK).backward()  # type: ignore[no-untyped-call]
    compressor.step()
    cosine.step()
print(compressor, f"holds {compressor.nonzeros():,} non-zeros")

# %% [markdown]
# ## Save, read back, attack
# What is evaluated is the file.

# %%
folder = Path(tempfile.mkdtemp(prefix="atmc-notebook-"))
size = compressor.save(folder / "small.atmc")
small = load(folder / "small.atmc", network=Mine())
compressed = evaluate(small, images[test], labels[test], attacks=["pgd"], epsilons=radii)
dense_size = 4 * sum(parameter.numel() for parameter in network.parameters())
print(f"{dense_size:,} bytes of weights before, a file of {size:,} bytes after")
for before, after in zip(dense, compressed, strict=True):
    print(
        f"epsilon {before.epsilon}: {before.robust.value:.3f} before, "
        f"{after.robust.value:.3f} after ({after.robust.low:.3f} to {after.robust.high:.3f})"
    )

# %% [markdown]
# ## Look
# PGD alone flatters small networks: for a claim, attack by `autoattack`, too.

# %%
from matplotlib import pyplot as plt  # noqa: E402

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
sides = {f"dense, {dense_size:,} bytes": dense, f"ATMC, {size:,} bytes": compressed}
for label, found in sides.items():
    values = [each.robust.value for each in found]
    spread = [
        [value - each.robust.low for value, each in zip(values, found, strict=True)],
        [each.robust.high - value for value, each in zip(values, found, strict=True)],
    ]
    axes.errorbar(radii, values, yerr=spread, marker="o", capsize=3, label=label)
axes.set(xlabel="epsilon (l-infinity)", ylabel="accuracy under PGD", ylim=(0, 1))
axes.legend()
figure.savefig(folder / "robustness.png", dpi=120)
print(f"the picture and the file are in {folder}")
