"""Feed-forward networks as data, for networks that have no named architecture."""

from atmc_core.networks.graph.build import build_module
from atmc_core.networks.graph.ir import Graph, Node

__all__ = ["Graph", "Node", "build_module"]
