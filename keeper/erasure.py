"""Erases tenants that are to go, and what the logs in the data folder say of them."""

import logging
import os
import re
from pathlib import Path

from jobstore.database import Database
from jobstore.erasure import erase, leaving
from jobstore.objects import ObjectStore
from jobstore.retry import TRANSIENT

log = logging.getLogger(__name__)


def erase_tenants(database: Database, store: ObjectStore, logs: Path) -> None:
    """Erase every tenant that was asked to go, as far as it can go now.

    `logs` is the folder of the logs that the launcher keeps, which may not be there: the logs of
    containers are their engine's.
    """
    with database.read() as session:
        names = leaving(session)
    for name in names:
        # Before its row, by which it is found again.
        for path in logs.glob("*.log*"):
            forget_in_log(path, name)
        try:
            if erase(database, store, name):
                log.info("a tenant was erased with all that was its own")
        except TRANSIENT:
            raise
        except Exception:
            # The sweep, which all others need, goes on; this is tried again with the next.
            log.exception("a tenant could not be erased")


def forget_in_log(path: Path, tenant: str) -> None:
    """Take the lines that name the tenant out of a log that other processes append to."""
    mark = re.compile(rb'(?:tenant=|"tenant": "|/tenants/)%b(?![a-z0-9-])' % tenant.encode())
    with os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND), "r+b", buffering=0) as file:
        lines = file.readall().splitlines(keepends=True)
        kept = [line for line in lines if not mark.search(line)]
        if len(kept) == len(lines):
            return
        # What was written since is read at the last moment. The others go on at the new end.
        late = file.readall()
        file.truncate(0)
        file.write(b"".join(kept) + late)
