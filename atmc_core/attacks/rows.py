"""Batches that shrink: dataclasses of tensors with one row for each image still attacked."""

from dataclasses import fields
from typing import Any, Self

from torch import Tensor


class Rows:
    """A dataclass whose tensors all have the same number of rows.

    Other fields than tensors and ``Rows`` are carried along as they are.
    """

    def rows(self, index: Tensor) -> Self:
        """The rows that ``index`` (bool ``[N]`` or row numbers) chooses."""
        values = {
            field.name: _select(getattr(self, field.name), index)
            for field in fields(self)  # type: ignore[arg-type]
        }
        return type(self)(**values)


def _select(value: Any, index: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value[index]
    return value.rows(index) if isinstance(value, Rows) else value
