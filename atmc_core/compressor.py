"""Compresses any network inside any training loop."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, overload

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
from atmc_core.solver.arguments import (
    check_name,
    check_network,
    check_numbers,
    given_k,
    given_optimizer,
    given_structure,
)
from atmc_core.solver.optimizer import OptimizerFactory
from atmc_core.solver.shared import SharedWeights
from atmc_core.solver.support import Structure
from atmc_core.solver.weights import State, Trainable
from atmc_spec import defaults
from atmc_spec.names import (
    FLOAT_BITS,
    DensitySchedule,
    Importance,
    SmallTensorBits,
    StructureName,
)


class Compressor(Trainable, torch.optim.Optimizer):
    """Compresses a network to k non-zeros of b bits each, in the place of a loop's optimiser.

    The weights of all convolutions and linear layers are held as W = UV + C. ``step`` takes the
    gradients that ``backward`` left in the network, moves U, V and C and all other parameters, and
    sets to zero what exceeds the non-zeros allowed. ``freeze`` begins the end game, from which on
    both constraints hold exactly. The method is ATMC, Gui et al., "Model Compression with
    Adversarial Robustness: A Unified Optimization Framework", NeurIPS 2019; ADMM solves it.

    The network is trained in place, on whichever device it lies: call it as before, and let nothing
    else change its weights. Schedulers of ``torch.optim`` work on this object as on any optimiser.

    Args:
        network: maps images to logits; float32. Compression starts from its present weights,
            trained or not.
        density: the non-zeros allowed in U, V and C together, as a share of the dense weights;
            above 0, at most 1. Give either this or ``k``.
        k: the number of non-zeros allowed in U, V and C together.
        bits: the bits of a non-zero: 1 to 8 give each tensor a codebook of 2^bits values, 16 means
            float16, 32 means no quantisation.
        steps: how many steps there will be before ``freeze``; the non-zeros shrink to k in the
            first ``shrink_fraction`` of them. With 0 the end game begins at once.
        optimizer: a class of ``torch.optim``, which is given ``lr``, or a function that makes an
            optimiser of a list of tensors. The default is SGD with Nesterov momentum of 0.9 and a
            weight decay of 1e-4.
        lr: the learning rate for an ``optimizer`` that is a class, and for the default one.
        small_tensor_bits: 32 leaves biases, norms and codebooks in float32; with 16 the end game
            trains them as float16, with 8 biases as integers of 8 bits times a power of two and the
            rest as float16, and the file stores them so.
        structure: ``element`` drops single weights; ``channel`` drops whole channels, so that the
            file holds a smaller network. A ``Structure`` of one's own brings its own importance.
        factorize: whether U and C are used; without them W itself is pruned and quantised.
        factors: the U, V and C to start from, instead of a split of the network's weights: those of
            another way to split (``atmc_core.factors.splitting``), or of an artifact. The network's
            weights are set to what they compose.
        importance: which single weights stay, by ``lamp`` (Lee et al., 2021) or ``magnitude``.
        rank_fraction: the share of a weight's rows (of a tall one's columns) that become the common
            basis of U and V; above 0, at most 1.
        rho: the weight of the ADMM penalty.
        dual_interval: the steps between two renewals of the ADMM dual.
        density_schedule: the curve along which the non-zeros shrink to k.
        shrink_fraction: the share of ``steps`` in which they shrink, 0 to 1.

    Raises:
        ValueError: if a number is out of range, or the network holds nothing to compress.
        InvalidInput: if ``structure`` is ``channel`` and ``torch.fx`` cannot trace the network.

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
        small_tensor_bits: SmallTensorBits = FLOAT_BITS,
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
        # Optimizer.__init__ is not called: it would hold tensors of its own, but here the inner
        # optimiser, which ``weights`` owns, holds them all.
        views = compressible_weights(network)
        check_network(network, list(views))
        self.num_weights = sum(weight.numel() for weight, _ in dense_weights(network).values())
        self.k = given_k(density, k, self.num_weights)
        check_name("density_schedule", density_schedule, DensitySchedule)
        if small_tensor_bits not in get_args(SmallTensorBits):
            raise ValueError(f"small_tensor_bits is {small_tensor_bits}: choose 8, 16 or 32")
        check_numbers(bits, steps, rank_fraction, rho, dual_interval, shrink_fraction)
        self.network, self.bits, self.small_tensor_bits = network, bits, small_tensor_bits
        self._make_optimizer = given_optimizer(optimizer, lr)
        self.structure = given_structure(structure, network, importance)
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
        """U, V and C of each weight, by the weight's name in the network."""
        return self.weights.factors

    def nonzeros(self) -> int:
        """The present number of non-zero entries in U, V and C of all weights together."""
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
        """Take one optimiser step from the network's gradients, and free the gradients.

        Args:
            closure: computes the loss and its gradients first, as for torch's own optimisers.

        Returns:
            The closure's loss, or None without a closure.

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
        """Do what ``step`` does, without its checks.

        Args:
            learning_rate: sets that of all parameter groups; by default the groups keep theirs.
        """
        self.weights.update(learning_rate)
        self.structure.silence(self.network)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Free the network's gradients. ``step`` does so too, so this is only for compatibility.

        Args:
            set_to_none: as in ``torch.optim.Optimizer.zero_grad``.
        """
        self.network.zero_grad(set_to_none)

    def freeze(self) -> None:
        """Begin the end game, in which only shared values, biases and norms are trained.

        Which entries are non-zero and which codebook value each has stays as it is, so both
        constraints hold from here on, whatever happens in training. If there were fewer steps than
        announced, the non-zeros in excess of k are dropped first. The optimiser starts anew, but
        its groups keep the learning rate and whatever a scheduler has set there. A second call
        changes nothing.
        """
        if self.frozen:
            return
        groups = self.param_groups
        self.weights = self._end_game(self.factors)
        for group, before in zip(self.param_groups, groups, strict=True):
            group.update({name: value for name, value in before.items() if name != "params"})

    def _end_game(self, factors: NamedFactors) -> SharedWeights:
        """Freeze the supports and codes of the factors, with at most k non-zeros."""
        self.structure.adopt(factors)
        self.structure.shrink(factors, self.k)
        self.structure.silence(self.network)
        return SharedWeights(
            self.network,
            factors,
            bits=self.bits,
            small_tensor_bits=self.small_tensor_bits,
            optimizer=self._make_optimizer,
        )

    def aim_at(self, k: int) -> None:
        """Change k before ``freeze``.

        A job does so where the k that fits a file depends on which entries are left.

        Args:
            k: the new number of non-zeros allowed, from 1 to ``num_weights``.

        Raises:
            ValueError: if the end game has begun, or for a k out of range.
        """
        if not isinstance(self.weights, AdmmWeights):
            raise ValueError("k can only change before freeze()")
        self.k = given_k(None, k, self.num_weights)
        self.weights.aim_at(self.k)
        self.structure.silence(self.network)

    def feasible_weights(self) -> dict[str, Tensor] | None:
        """The weights at the nearest point that meets both constraints, to evaluate before the end.

        Returns:
            The weights that differ from the network's present ones, by name, in their own shapes:
            none in the end game, whose weights are feasible already. None instead of a dict while
            more than k non-zeros are still allowed.
        """
        if not isinstance(self.weights, AdmmWeights):
            return {}
        return self.weights.feasible_weights() if self.weights.at_target else None

    def averaged(self) -> list[Tensor]:
        """The tensors that ``training.averaging.WeightAverage`` averages, in their own shapes."""
        return self.weights.averaged()

    def refresh(self) -> None:
        """Write the weights into the network again after the ``averaged`` tensors were changed."""
        self.weights.refresh()

    def compressed(
        self,
        architecture: str | None = None,
        input_shape: tuple[int, int, int] | None = None,
    ) -> CompressedModel:
        """The compressed model that ``save`` writes; see there for the arguments.

        Raises:
            ValueError: before ``freeze``, or if the network is not of the architecture.
            InvalidInput: if the architecture is not known.
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
            others=float_state(self.network, held, self.small_tensor_bits),
            bits=self.bits,
            k=self.k,
            input_shape=input_shape,
            module=self.network if architecture is None else None,
        )
        return stored(model, self.structure)

    def _classes_of(self, architecture: str, input_shape: tuple[int, int, int] | None) -> int:
        """Check that the network is of the architecture, and return its number of classes."""
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
            path: the file to write.
            architecture: a known name (see ``register_architecture``), with which ``load`` needs no
                network. Without it ``load`` must be given one.
            input_shape: the images' ``(channels, height, width)``, if the architecture leaves it
                open.

        Returns:
            The file's size in bytes.

        Raises:
            ValueError: before ``freeze``, or if the network is not of the architecture.
            InvalidInput: if the architecture is not known.
        """
        return artifact.save(self.compressed(architecture, input_shape), Path(path))

    def state_dict(self) -> State:
        """All that ``load_state_dict`` needs, the network's tensors included.

        The tensors are partly views of live memory, as those of torch's ``state_dict`` are.
        """
        return {
            "frozen": self.frozen,
            "k": self.k,
            "weights": self.weights.state_dict(),
            "structure": self.structure.state_dict(),
        }

    def load_state_dict(self, state_dict: State) -> None:
        """Continue from the ``state_dict`` of a compressor of the same network and arguments.

        Raises:
            ValueError: if this compressor is frozen and the state is not.
        """
        if state_dict["frozen"] and not self.frozen:
            self.freeze()
        if self.frozen and not state_dict["frozen"]:
            raise ValueError("this compressor is frozen and the state is not: make a new one")
        self.k = state_dict["k"]
        self.weights.load_state_dict(state_dict["weights"])
        self.weights.compose()
        self.structure.load_state_dict(state_dict["structure"])

    # torch's schedulers read and set these attributes, so they show the inner optimiser's.

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """The inner optimiser's parameter groups: its tensors and their learning rates."""
        return self.weights.optimizer.param_groups

    @property
    def defaults(self) -> dict[str, Any]:  # type: ignore[override]
        """The inner optimiser's default settings."""
        return self.weights.optimizer.defaults

    @property
    def state(self) -> Any:  # type: ignore[override]
        """The inner optimiser's state, such as momentum, by tensor."""
        return self.weights.optimizer.state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refuse, because a compressor trains its network's parameters only.

        Raises:
            ValueError: always.
        """
        raise ValueError("a compressor trains its network and nothing else")

    def __repr__(self) -> str:
        phase = "frozen" if self.frozen else "shrinking"
        return f"Compressor(k={self.k} of {self.num_weights}, bits={self.bits}, {phase})"
