"""Compresses any network inside any training loop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast, overload

import torch
from torch import Tensor, nn

from atmc_core import artifact
from atmc_core.artifact import CompressedModel, float_state
from atmc_core.artifact.budget import stored
from atmc_core.factors.factors import NamedFactors
from atmc_core.factors.splitting import interpolative, plain
from atmc_core.factors.views import compressible_weights, dense_weights
from atmc_core.networks.architectures import bind_num_classes
from atmc_core.networks.blueprint import OWN, Blueprint
from atmc_core.networks.classifier import Normalization
from atmc_core.solver.admm import AdmmOptions, AdmmWeights
from atmc_core.solver.optimizer import OptimizerFactory, sgd
from atmc_core.solver.shared import SharedWeights
from atmc_core.solver.support import Channels, Structure
from atmc_core.solver.weights import State, Trainable
from atmc_spec import defaults
from atmc_spec.names import DensitySchedule, Importance, StructureName

_BITS = (*range(1, 9), 16, 32)


class Compressor(Trainable, torch.optim.Optimizer):
    """Brings a network under k non-zeros and b bits while it is trained; an optimiser for the loop.

    The weights of all convolutions and linear layers are held as W = UV + C. ``step`` takes the
    gradients that ``backward`` left in the network, moves U, V and C and everything else that is
    trained, and drops what cannot stay; ``freeze`` begins the end game, from which on both
    constraints hold exactly. ATMC, Gui et al., "Model Compression with Adversarial Robustness: A
    Unified Optimization Framework", NeurIPS 2019, solved by ADMM.

    The network stays what it was, trained in place: call it as before, and have nothing else change
    its weights. It may lie on any device, and stays there. Schedulers of ``torch.optim`` work on
    this object as on any optimiser.

    Args:
        network: maps images to logits; float32. Its weights now, trained or not, are the start.
        density: non-zeros of U, V and C over the dense weights, above 0, at most 1. Or give k.
        k: how many non-zeros there may be.
        bits: of a non-zero: 1 to 8 for a codebook of 2^bits values a tensor, 16 for float16, 32 for
            no quantisation.
        steps: how many steps there will be before ``freeze``; the non-zeros shrink to k in the
            first ``shrink_fraction`` of them. With 0 the end game begins at once.
        optimizer: a class of ``torch.optim``, which gets ``lr``, or a function that makes an
            optimiser of a list of tensors; by default SGD with Nesterov's momentum of 0.9 and a
            weight decay of 1e-4.
        lr: the learning rate, of an ``optimizer`` that is a class.
        structure: ``element``: single weights go; ``channel``: whole channels, so that the file is
            of a smaller network. Or a ``Structure`` of one's own, which brings its importance.
        factorize: whether to use U and C at all; without them it is pruning and quantisation of W.
        factors: where U, V and C start, instead of a split of the weights: those of another way to
            split (``atmc_core.factors.splitting``), or of an artifact. The weights follow them.
        importance: which weights stay, ``lamp`` (Lee et al., 2021) or ``magnitude``; of elements.
        rank_fraction: share of the rows that U's and V's basis has, above 0, at most 1.
        rho, dual_interval: weight of the ADMM penalty, and the steps between its renewals.
        density_schedule, shrink_fraction: how the non-zeros shrink.

    Raises:
        ValueError: for a number out of range, or a network that holds nothing to compress.
        InvalidInput: for ``channel`` and a network that ``torch.fx`` cannot trace.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        >>> images, labels = torch.rand(16, 1, 8, 8), torch.arange(16) % 10
        >>> compressor = Compressor(network, density=0.1, bits=4, steps=20)
        >>> for _ in range(20):
        ...     nn.functional.cross_entropy(network(images), labels).backward()
        ...     compressor.step()
        >>> compressor.freeze()
        >>> compressor.nonzeros() <= compressor.k == round(0.1 * (64 * 32 + 32 * 10))
        True
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        bits: int,
        steps: int,
        density: float | None = None,
        k: int | None = None,
        optimizer: OptimizerFactory | None = None,
        lr: float = defaults.LEARNING_RATE,
        structure: StructureName | Structure = "element",
        factorize: bool = True,
        factors: NamedFactors | None = None,
        importance: Importance = defaults.IMPORTANCE,
        rank_fraction: float = defaults.RANK_FRACTION,
        rho: float = defaults.RHO,
        dual_interval: int = defaults.DUAL_INTERVAL,
        density_schedule: DensitySchedule = defaults.DENSITY_SCHEDULE,
        shrink_fraction: float = defaults.SHRINK_FRACTION,
    ) -> None:
        # The base class would hold groups of tensors of its own: here they are the inner one's.
        views = compressible_weights(network)
        _check_network(network, list(views))
        self.num_weights = sum(weight.numel() for weight, _ in dense_weights(network).values())
        self.k = _given_k(density, k, self.num_weights)
        _check_numbers(bits, steps, rank_fraction, rho, dual_interval, shrink_fraction)
        self.network, self.bits = network, bits
        self._make_optimizer = _factory(optimizer, lr)
        self.structure = _structure(structure, network, importance)
        if factors is None:
            weights = dense_weights(network)
            factors = interpolative(weights, rank_fraction) if factorize else plain(weights)
        self.weights: AdmmWeights | SharedWeights
        if not steps:
            self.weights = self._end_game(factors)
            return
        self.weights = AdmmWeights(
            network,
            factors,
            k=self.k,
            bits=bits,
            steps=steps,
            options=AdmmOptions(rho, dual_interval, density_schedule, shrink_fraction),
            optimizer=self._make_optimizer,
            structure=self.structure,
        )
        self.structure.silence(network)

    @property
    def frozen(self) -> bool:
        """Whether the end game has begun."""
        return isinstance(self.weights, SharedWeights)

    @property
    def factors(self) -> NamedFactors:
        """U, V and C of each weight, by its name in the network."""
        return self.weights.factors

    def nonzeros(self) -> int:
        """How many of U's, V's and C's entries are not zero now, all weights together."""
        return sum(
            int(own.tensors[role].count_nonzero())
            for own in self.factors.values()
            for role in own.used
        )

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move all that is trained by the network's gradients, and free those.

        Args:
            closure: computes the loss and its gradients first, as for torch's own optimisers.

        Returns:
            The closure's loss; nothing without one.

        Raises:
            ValueError: if a weight has no gradient.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for name, weight in self.weights.composed.items():
            if weight.grad is None:
                raise ValueError(f"{name} has no gradient: call backward() on a loss before step()")
        self.update()
        return loss

    def update(self, learning_rate: float | None = None) -> None:
        """``step`` at a given learning rate, without its checks."""
        self.weights.update(learning_rate)
        self.structure.silence(self.network)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Free the network's gradients; ``step`` has done so already."""
        self.network.zero_grad(set_to_none)

    def freeze(self) -> None:
        """Begin the end game: supports and codes stay, shared values, biases and norms are trained.

        Both constraints hold from here on, whatever happens in training. What is left above k, if
        there were fewer steps than announced, is dropped first. The optimiser starts anew, at the
        present learning rate and with what a scheduler has left in its groups. Where the end game
        has begun already, nothing changes.
        """
        if self.frozen:
            return
        groups = self.param_groups
        self.weights = self._end_game(self.factors)
        for group, before in zip(self.param_groups, groups, strict=True):
            group.update({name: value for name, value in before.items() if name != "params"})

    def _end_game(self, factors: NamedFactors) -> SharedWeights:
        """The factors with their supports and codes frozen, k non-zeros of them at most."""
        self.structure.read(factors)
        self.structure.shrink(factors, self.k)
        weights = SharedWeights(
            self.network, factors, bits=self.bits, optimizer=self._make_optimizer
        )
        self.structure.silence(self.network)
        return weights

    def aim_at(self, k: int) -> None:
        """Change k, before ``freeze``: as when what fits a file depends on which entries are left.

        Raises:
            ValueError: if the end game has begun, or for a k out of range.
        """
        if not isinstance(self.weights, AdmmWeights):
            raise ValueError("k can only change before freeze()")
        self.k = _given_k(None, k, self.num_weights)
        self.weights.aim_at(self.k)
        self.structure.silence(self.network)

    def feasible_weights(self) -> dict[str, Tensor] | None:
        """The weights at the nearest point that meets both constraints, for a look on the way.

        Returns:
            Those that the network does not hold already, by name, in their own shapes; None while
            more than k non-zeros are allowed.
        """
        if not isinstance(self.weights, AdmmWeights):
            return {}
        return self.weights.feasible_weights() if self.weights.at_target else None

    def averaged(self) -> list[Tensor]:
        """What a weight average is taken of; see ``training.averaging.WeightAverage``."""
        return self.weights.averaged()

    def refresh(self) -> None:
        """Let the network follow a change of the averaged tensors."""
        self.weights.refresh()

    def compressed(
        self,
        architecture: str | None = None,
        input_shape: tuple[int, int, int] | None = None,
    ) -> CompressedModel:
        """What ``save`` writes.

        Raises:
            ValueError: before ``freeze``.
            InvalidInput: if the network is not of the architecture.
        """
        if not self.frozen:
            raise ValueError("the constraints hold only after freeze(): call it first")
        num_classes = 0
        if architecture is not None:
            num_classes = self._classes_of(architecture, input_shape)
        held = {name: own.whole() for name, own in self.factors.items()}
        model = CompressedModel(
            architecture=architecture or OWN,
            num_classes=num_classes,
            normalization=Normalization(),
            factors=held,
            others=float_state(self.network, held),
            bits=self.bits,
            k=self.k,
            input_shape=input_shape,
            module=self.network if architecture is None else None,
        )
        return stored(model, self.structure)

    def _classes_of(self, architecture: str, input_shape: tuple[int, int, int] | None) -> int:
        """The number of classes, once the network is found to be of the architecture."""
        state = self.network.state_dict()
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        num_classes = bind_num_classes(architecture, shapes)
        expected = Blueprint.of(architecture, num_classes, input_shape, None).build().state_dict()
        for name in [*expected, *shapes]:
            own, theirs = shapes.get(name), expected.get(name)
            if theirs is None or own != tuple(theirs.shape):
                raise ValueError(f"the network is no {architecture}: see {name}")
        return num_classes

    def save(
        self,
        path: str | Path,
        *,
        architecture: str | None = None,
        input_shape: tuple[int, int, int] | None = None,
    ) -> int:
        """Write the ``.atmc`` file of factors, codebooks and positions.

        Args:
            architecture: a known name, so that the file can be read without the network; see
                ``register_architecture``.
            input_shape: channels, height, width, where the architecture leaves them open.

        Returns:
            Its size in bytes.

        Raises:
            ValueError: before ``freeze``, or if the network is not of the architecture.
        """
        return artifact.save(self.compressed(architecture, input_shape), Path(path))

    def state_dict(self) -> State:
        """All that it takes to go on: tensors and plain values, the network's included."""
        return {
            "frozen": self.frozen,
            "k": self.k,
            "weights": self.weights.state_dict(),
            "structure": self.structure.state_dict(),
        }

    def load_state_dict(self, state_dict: State) -> None:
        """Go on from a ``state_dict`` of a compressor of the same network and arguments.

        Raises:
            ValueError: if the end game has begun here and not there.
        """
        if state_dict["frozen"] and not self.frozen:
            self.freeze()
        if self.frozen and not state_dict["frozen"]:
            raise ValueError("this compressor is frozen and the state is not: make a new one")
        self.k = state_dict["k"]
        self.weights.load_state_dict(state_dict["weights"])
        self.weights.compose()
        self.structure.load_state_dict(state_dict["structure"])

    # What torch's schedulers look at is the inner optimiser's.

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The inner optimiser's groups: learning rates and the like, and its tensors."""
        return self.weights.optimizer.param_groups

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """The inner optimiser's."""
        return self.weights.optimizer.defaults

    @property
    def state(self) -> Any:  # type: ignore[override]
        """The inner optimiser's."""
        return self.weights.optimizer.state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refuse: what is trained is the network's.

        Raises:
            ValueError: always.
        """
        raise ValueError("a compressor trains its network and nothing else")

    def __repr__(self) -> str:
        phase = "frozen" if self.frozen else "shrinking"
        return f"Compressor(k={self.k} of {self.num_weights}, bits={self.bits}, {phase})"


def _factory(optimizer: OptimizerFactory | None, lr: float) -> OptimizerFactory:
    if not 0 < lr < float("inf"):
        raise ValueError(f"lr is {lr}: it must be above 0")
    if optimizer is None:
        return sgd(lr)
    if isinstance(optimizer, type):
        kind = cast(Callable[..., torch.optim.Optimizer], optimizer)
        return lambda tensors: kind(tensors, lr=lr)
    return optimizer


def _structure(
    structure: StructureName | Structure, network: nn.Module, importance: Importance
) -> Structure:
    if isinstance(structure, Structure):
        return structure
    return Channels(network) if structure == "channel" else Structure(importance)


def _given_k(density: float | None, k: int | None, num_weights: int) -> int:
    if (density is None) == (k is None):
        raise ValueError("give one of density and k")
    if density is not None:
        if not 0 < density <= 1:
            raise ValueError(f"density is {density}: it must be above 0 and at most 1")
        k = round(density * num_weights)
    if k is None or not 1 <= k <= num_weights:
        raise ValueError(f"k is {k}: it must be from 1 to {num_weights}, the number of weights")
    return k


def _check_numbers(
    bits: int,
    steps: int,
    rank_fraction: float,
    rho: float,
    dual_interval: int,
    shrink_fraction: float,
) -> None:
    for good, said in (
        (bits in _BITS, f"bits is {bits}: it must be 1 to 8, 16 or 32"),
        (steps >= 0, f"steps is {steps}: it must not be negative"),
        (0 < rank_fraction <= 1, f"rank_fraction is {rank_fraction}: it must be in (0, 1]"),
        (rho > 0, f"rho is {rho}: it must be above 0"),
        (dual_interval >= 1, f"dual_interval is {dual_interval}: it must be at least 1"),
        (0 <= shrink_fraction <= 1, f"shrink_fraction is {shrink_fraction}: it must be in [0, 1]"),
    ):
        if not good:
            raise ValueError(said)


def _check_network(network: nn.Module, names: list[str]) -> None:
    if not names:
        raise ValueError("the network has no convolution (Conv2d) and no linear layer to compress")
    parameters: dict[str, Tensor] = dict(network.named_parameters())
    for name, parameter in parameters.items():
        if parameter.dtype != torch.float32:
            raise ValueError(f"{name} is {parameter.dtype}: compress a network in float32")
    for name in names:
        if name not in parameters:
            raise ValueError(f"{name} is no plain parameter: remove its parametrisation first")
        if not parameters[name].requires_grad:
            raise ValueError(f"{name} needs no gradient: call requires_grad_() on it first")
