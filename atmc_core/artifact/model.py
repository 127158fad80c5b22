"""A compressed network in memory."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save as save_safetensors
from torch import Tensor, nn

from atmc_core.factors.factors import Factors
from atmc_core.factors.views import compressible_weights
from atmc_core.networks import norms
from atmc_core.networks.blueprint import Blueprint
from atmc_core.networks.channels import channel_graph
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.networks.graph import Graph
from atmc_core.networks.removal import remove
from atmc_core.networks.state_dict import load_tensors
from atmc_core.solver.rounding import rounded
from atmc_reader.layout import CODEBOOK_BITS
from atmc_spec.names import FLOAT_BITS, SmallTensorBits

# With so many bits a bias is too coarse for what a norm's statistics add to it after training.
_COARSE = 8


@dataclass(frozen=True)
class CompressedModel:
    """A network whose convolution and linear weights are factors W = UV + C.

    Attributes:
        architecture: a known architecture's name, ``onnx`` or ``own``.
        num_classes: the number of classes.
        normalization: the normalisation in front of the network.
        factors: U, V and C of each weight by its name, in the architecture's order. Factors that
            are held in part are completed with zeros.
        others: the float tensors of the state dict that are no such weights, in its order.
        bits: the bits of each non-zero: 1 to 8 (a codebook), 16 or 32 (floats).
        k: the budget; the factors have at most this many non-zeros.
        kept: whether each channel class is left, bool ``[count]``; None if all are.
        input_shape: channels, height and width of the images; None if the architecture fixes them.
        graph: the graph of an ``onnx`` network, with which the file needs nothing else.
        module: for an ``own`` network, one with the same modules; its weights do not matter.
    """

    architecture: str
    num_classes: int
    normalization: Normalization
    factors: dict[str, Factors]
    others: dict[str, Tensor]
    bits: int
    k: int
    kept: Tensor | None = None
    input_shape: tuple[int, int, int] | None = None
    graph: Graph | None = None
    module: nn.Module | None = None

    def __post_init__(self) -> None:
        whole = {name: factors.whole() for name, factors in self.factors.items()}
        object.__setattr__(self, "factors", whole)

    @property
    def blueprint(self) -> Blueprint:
        """What it takes to build the network without its weights."""
        return Blueprint.of(
            self.architecture, self.num_classes, self.input_shape, self.graph, self.module
        )

    def state_dict(self) -> dict[str, Tensor]:
        """The float tensors of the network's state dict, with the weights composed."""
        return self.others | {name: factors.compose() for name, factors in self.factors.items()}

    def network(self) -> nn.Module:
        """The network in evaluation mode with its weights composed, without the normalisation."""
        network = build_kept(self.blueprint, self.kept)
        load_tensors(network, self.state_dict(), strict=False)
        return network.eval()

    def classifier(self) -> Classifier:
        """The network behind its normalisation, in evaluation mode, with its weights composed."""
        channels = self.blueprint.input_shape[0]
        return Classifier(self.network(), self.normalization, channels).eval()

    def nonzeros(self) -> tuple[int, int, int]:
        """The numbers of non-zeros in all U, in all V and in all C."""
        counts = [[int(t.count_nonzero()) for t in f.tensors] for f in self.factors.values()]
        u, v, c = (sum(column) for column in zip(*counts, strict=True))
        return u, v, c

    def distinct_values(self) -> dict[str, tuple[int, int, int]]:
        """The numbers of distinct non-zero values in U, V and C of each weight, by its name."""
        return {
            name: tuple(len(torch.unique(t[t != 0])) for t in factors.tensors)  # type: ignore[misc]
            for name, factors in self.factors.items()
        }

    def nominal_ratio(self) -> float:
        """The compression ratio as the ATMC paper's code computes it.

        It is (bits * non-zeros + 32 * codebook values) / (32 * N), where N is the number of dense
        conv and linear weights. Positions do not count.
        """
        codebooks = sum(sum(counts) for counts in self.distinct_values().values())
        table = 32 * codebooks if self.bits <= CODEBOOK_BITS else 0
        views = compressible_weights(self.blueprint.build())
        dense = sum(int(np.prod(view.shape)) for view in views.values())
        return (self.bits * sum(self.nonzeros()) + table) / (32 * dense)


def build_kept(blueprint: Blueprint, kept: Tensor | None) -> nn.Module:
    """Build a network with only some of its channel classes, with PyTorch's initial weights.

    Args:
        blueprint: the whole network.
        kept: whether each channel class is kept, bool ``[count]``; None keeps all.

    Raises:
        ValueError: if the network does not have ``count`` channel classes.
    """
    network = blueprint.build()
    if kept is not None:
        graph = channel_graph(network)
        if graph is None or graph.count != len(kept):
            raise ValueError(f"{blueprint.architecture} has no {len(kept)} channel classes")
        remove(network, graph, ~kept)
    return network


def float_state(
    network: torch.nn.Module, views: dict[str, Any], bits: SmallTensorBits = FLOAT_BITS
) -> dict[str, Tensor]:
    """The float tensors of a state dict that are not factorised: what ``others`` contains.

    The integer counters of batch norms are left out: they have no use in evaluation mode. The
    statistics of batch norms go into their gains and biases (``networks.norms``), so that a file
    has two vectors to hold instead of four; zeros and ones, which are left, take it a few bytes.

    Args:
        network: the network.
        views: the weights that are factorised, by name.
        bits: of a value, to which it is rounded (``solver.rounding``).

    Returns:
        Copies on the CPU, by name.
    """
    state = network.state_dict()
    if bits > _COARSE:
        state |= norms.settled(network)
    return {
        name: rounded(name, tensor.detach().cpu().clone(), bits)
        for name, tensor in state.items()
        if name not in views and tensor.is_floating_point()
    }


def dense_bytes(network: torch.nn.Module) -> int:
    """The size of the network's state dict as a float32 safetensors file, in bytes.

    Size ratios refer to it.
    """
    tensors = {
        name: tensor.detach().cpu().float().numpy()
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()
    }
    return len(save_safetensors(tensors))
