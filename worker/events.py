"""Reads the events of a child, line by line, while the child writes them."""

import json
from datetime import datetime
from pathlib import Path

from jobstore.events import EventType, NewEvent


class ProtocolError(Exception):
    """The child left something in its folder that docs/interfaces/ does not allow."""


class EventTail:
    """Reads the complete lines that are appended to an events file.

    Attributes:
        confirmed: how many events were confirmed, and so are not read again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.confirmed = 0
        self._offset = 0
        self._read = (0, 0)

    def read(self) -> list[NewEvent]:
        """Return the events after the confirmed ones.

        Raises `ProtocolError` for a line that is no event.
        """
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._offset)
            data = file.read()
        # A last line without a line end is still being written, or its writer was killed.
        whole = data[: data.rfind(b"\n") + 1]
        events = [_parse_event(line) for line in whole.splitlines()]
        self._read = (self._offset + len(whole), self.confirmed + len(events))
        return events

    def confirm(self) -> None:
        """Note that what the last `read` returned is stored, so that it is not returned again."""
        self._offset, self.confirmed = self._read


def _parse_event(line: bytes) -> NewEvent:
    try:
        data = json.loads(line)
        moment = datetime.fromisoformat(data.pop("time"))
        return NewEvent(EventType(data.pop("type")), data, moment)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProtocolError(f"not an event: {line[:200]!r}") from error
