"""The type of the function that receives a job's events."""

from collections.abc import Callable
from typing import Any

#: A function that is called with each event of a job, a JSON object (docs/interfaces/events.md).
Emit = Callable[[dict[str, Any]], None]
