"""How a conv or linear weight is seen as matrices: one for each group of a convolution."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class MatrixView:
    """A conv or linear weight as ``groups`` matrices of ``rows`` x ``columns``.

    Rows are a group's output channels. Columns are the kernel's area times the input channels, in
    this order, so that W comes out in channels-last memory format without a copy. Convolutions on
    a CPU run fastest in that format (1.6 times as fast for LeNet on two cores).

    Attributes:
        shape: the weight's own: ``(out, in / groups, height, width)`` or ``(out, in)``.
        groups: the convolution's groups; 1 for a linear layer.
        oriented: sets ``wide`` where the shape would not tell: a weight whose channels were cut
            out stays wide, or tall, as it was. None lets the shape decide.
    """

    shape: tuple[int, ...]
    groups: int
    oriented: bool | None = None

    @property
    def rows(self) -> int:
        """The output channels of one group."""
        return self.shape[0] // self.groups

    @property
    def columns(self) -> int:
        """The kernel's area times the input channels of one group."""
        return int(torch.Size(self.shape[1:]).numel())

    @property
    def wide(self) -> bool:
        """Whether U is the square factor, W = (I+U) V + C; else V is, W = U (V+I) + C."""
        return self.rows <= self.columns if self.oriented is None else self.oriented

    def to_matrices(self, weight: Tensor) -> Tensor:
        """The matrices ``[groups, rows, columns]`` of a weight of ``shape``."""
        last = weight.permute(0, 2, 3, 1) if weight.ndim == 4 else weight
        return last.reshape(self.groups, self.rows, self.columns)

    def to_weight(self, matrices: Tensor) -> Tensor:
        """The weight of ``shape`` as a view of contiguous matrices; the inverse of the above."""
        if len(self.shape) != 4:
            return matrices.view(self.shape)
        out, channels, height, width = self.shape
        return matrices.view(out, height, width, channels).permute(0, 3, 1, 2)

    @property
    def factor_shapes(self) -> tuple[tuple[int, int, int], ...]:
        """The shapes of U, V and C with all of the inner dimension."""
        g, m, n = self.groups, self.rows, self.columns
        return ((g, m, m), (g, m, n), (g, m, n)) if self.wide else ((g, m, n), (g, n, n), (g, m, n))


def compressible_weights(network: nn.Module) -> dict[str, MatrixView]:
    """The views of the weights that are compressed: every Conv2d's and Linear's, by parameter name.

    A weight that several modules share appears once, under its first name.
    """
    views: dict[str, MatrixView] = {}
    seen: set[int] = set()
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and id(module.weight) not in seen:
            seen.add(id(module.weight))
            groups = module.groups if isinstance(module, nn.Conv2d) else 1
            key = f"{name}.weight" if name else "weight"
            views[key] = MatrixView(tuple(module.weight.shape), groups)
    return views


def dense_weights(network: nn.Module) -> dict[str, tuple[Tensor, MatrixView]]:
    """The weights that are compressed, each with its view, by parameter name; not copied."""
    parameters = dict(network.named_parameters())
    return {name: (parameters[name], view) for name, view in compressible_weights(network).items()}
