"""A feed-forward network as data: what an upload without a named architecture is kept as."""

from atmc_core.networks.graph.build import build_module
from atmc_core.networks.graph.ir import Graph, Node

__all__ = ["Graph", "Node", "build_module"]
