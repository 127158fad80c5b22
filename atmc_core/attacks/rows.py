"""Batches that shrink: dataclasses of tensors with a row for each image that is still attacked."""

from dataclasses import fields
from typing import Any, Self

from torch import Tensor


class Rows:
    """A dataclass whose tensors all have the same number of rows."""

    def rows(self, index: Tensor) -> Self:
        """A copy with some of the rows of all tensors, also of those in fields that are ``Rows``.

        Args:
            index: the rows, as bool ``[N]`` or as row numbers int64 ``[M]``.
        """
        values = {
            field.name: _select(getattr(self, field.name), index)
            for field in fields(self)  # type: ignore[arg-type]
        }
        return type(self)(**values)


def _select(value: Any, index: Tensor) -> Any:
    if isinstance(value, Tensor):
        return value[index]
    return value.rows(index) if isinstance(value, Rows) else value
