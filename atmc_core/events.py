"""What a job says while it runs."""

from collections.abc import Callable
from typing import Any

#: Is called with each event, a JSON object (see docs/interfaces/events.md).
Emit = Callable[[dict[str, Any]], None]
