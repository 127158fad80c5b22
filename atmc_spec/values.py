"""The kinds of plain values, as JSON Schema knows them."""

from typing import Annotated

from pydantic import Field

#: An integer; ``true`` and text are none (``3.0`` is one, see ``SpecModel``).
Whole = Annotated[int, Field(strict=True)]
#: A number; ``true`` and text are none.
Number = Annotated[float, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]
