"""Tells the database that this worker is running, in a thread of its own."""

import logging
import threading
from contextlib import suppress

from jobstore.database import Database
from jobstore.logs import brief
from jobstore.retry import TRANSIENT
from jobstore.workers import Offer, announce, withdraw

log = logging.getLogger(__name__)


class Presence:
    """Announces every `every_s` seconds that the worker is running, and which devices it has."""

    def __init__(self, database: Database, owner: str, offer: Offer, *, every_s: float) -> None:
        self._database, self._owner, self._offer, self._every_s = database, owner, offer, every_s
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="presence", daemon=True)

    def begin(self) -> None:
        """Announce the worker now, and start the thread. Raises the errors of the database."""
        self._announce()
        self._thread.start()

    def end(self) -> None:
        """Stop the thread, and withdraw the worker from the database.

        If the database cannot be reached, the worker's row is soon too old to count anyway.
        """
        self._ended.set()
        self._thread.join()
        with suppress(*TRANSIENT), self._database.write() as session:
            withdraw(session, self._owner)

    def _keep(self) -> None:
        while not self._ended.wait(self._every_s):
            try:
                self._announce()
            except TRANSIENT as error:
                log.warning("not announced: %s", brief(error))

    def _announce(self) -> None:
        with self._database.write() as session:
            announce(session, self._owner, self._offer)
