"""What a run reads and writes outside its folder: patiently, and only while its lease holds."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from sqlalchemy.orm import Session

from jobstore.blobs import touch
from jobstore.database import Database
from jobstore.leases import Attempt
from jobstore.logs import brief
from jobstore.objects import ObjectStore, Stored, digest_of
from jobstore.retry import TRANSIENT, retry
from worker.guard import Guard

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Access:
    """The database and the store, as one attempt may use them; `store` is the tenant's."""

    database: Database
    store: ObjectStore
    attempt: Attempt
    guard: Guard

    def patiently(self, what: str, action: Callable[[], T]) -> T:
        """Repeat an action until the server answers, or until the attempt is stopped."""
        return retry(action, what=what, until=self.guard.stopped.is_set)

    def write(self, what: str, write: Callable[[Session], T]) -> T:
        """Repeat a write to the database until it works, or until the lease is lost."""

        def transaction() -> T:
            with self.database.write() as session:
                return write(session)

        return retry(transaction, what=what, until=lambda: self.guard.lost)

    def fetch(self, key: str, path: Path) -> None:
        """Put an object into a file."""
        self.patiently(f"fetching {path.name}", lambda: self.store.get_file(key, path))

    def put_blob(self, path: Path) -> Stored:
        """Store a file that nobody changes meanwhile as a blob of the tenant's."""
        sha256, size = digest_of(path), path.stat().st_size
        # The blob is touched first: the same bytes may belong to a deleted job, and then the keeper
        # must not delete them.
        self.write("storing", lambda s: touch(s, self.attempt.tenant, sha256, size))
        return self.patiently(f"storing {path.name}", lambda: self.store.put_blob(path))

    def delete(self, key: str) -> None:
        """Delete an object that nothing refers to any more; a failure only wastes space."""
        try:
            self.store.delete(key)
        except TRANSIENT as error:
            log.warning("%s was not deleted: %s", key, brief(error), extra=self.attempt.ids)
