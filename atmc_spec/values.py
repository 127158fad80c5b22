"""The types of plain values, which accept what JSON Schema's types of the same kind accept."""

from typing import Annotated

from pydantic import Field

#: An integer, but not ``true`` or text; ``SpecModel`` makes ``3.0`` an integer, too.
Whole = Annotated[int, Field(strict=True)]
#: A number, but not ``true`` or text.
Number = Annotated[float, Field(strict=True)]
#: ``true`` or ``false``, but not 0, 1 or text.
Flag = Annotated[bool, Field(strict=True)]
#: The least of what must be above 0 and is computed with in float32, squared or divided by.
SMALLEST = 1e-6
