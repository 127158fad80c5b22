"""Patience with servers that are away for a moment."""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from obstore.exceptions import BaseError as StoreError
from sqlalchemy.exc import InterfaceError, OperationalError

from jobstore.logs import brief

log = logging.getLogger(__name__)

T = TypeVar("T")

# Errors of a database that is away or busy, of a store that is away, and of the network.
TRANSIENT = (OperationalError, InterfaceError, StoreError, ConnectionError, TimeoutError)

_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 5.0


class GaveUp(Exception):
    """The server stayed away until there was no point in going on; its last error is the cause."""


def retry(action: Callable[[], T], *, what: str, until: Callable[[], bool]) -> T:
    """Return what `action` returns; after a transient error try again, until `until` says stop.

    Raises `GaveUp`, and every other error of `action` as it is.
    """
    delay_s = _FIRST_DELAY_S
    while True:
        try:
            return action()
        except TRANSIENT as error:
            if until():
                raise GaveUp(what) from error
            log.warning("%s failed, trying again: %s", what, brief(error))
        # At random, so that not all who wait ask at the same moment when the server comes back.
        time.sleep(delay_s * random.uniform(0.5, 1.0))
        delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
