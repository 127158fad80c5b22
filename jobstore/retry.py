"""Patience with servers that are away for a moment."""

import errno
import logging
import os
import random
import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

from obstore.exceptions import BaseError as StoreError
from psycopg.errors import DiskFull as PostgresDiskFull
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from jobstore.logs import brief

log = logging.getLogger(__name__)

T = TypeVar("T")

# Errors of a database that is away or busy, of a store that is away, and of the network.
TRANSIENT = (
    OperationalError,
    InterfaceError,
    PoolTimeout,
    StoreError,
    ConnectionError,
    TimeoutError,
)

_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 5.0


def is_transient(error: Exception) -> bool:
    """Tell whether another try may go well: of SQLite a wrong statement is such an error, too."""
    if not isinstance(error, TRANSIENT):
        return False
    lost = error.orig if isinstance(error, OperationalError) else None
    return getattr(lost, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR


def is_disk_full(error: Exception) -> bool:
    """Tell whether a transient error says that a disk, here or of a server, is full."""
    lost = error.orig if isinstance(error, OperationalError) else None
    if isinstance(lost, PostgresDiskFull):
        return True
    full = getattr(lost, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return full or (isinstance(error, StoreError) and os.strerror(errno.ENOSPC) in str(error))


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
