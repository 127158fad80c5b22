"""Chains the audit log, deletes of it what has expired, and says where its chains stand."""

import logging

from jobstore import audit
from jobstore.database import Database
from jobstore.tenancy import Origin

log = logging.getLogger(__name__)


def seal_all(database: Database) -> None:
    """Chain all records that have been committed."""
    while True:
        with database.write() as session:
            if audit.seal(session) == 0:
                return


def retain_audit(database: Database, keep_s: float | None) -> None:
    """Delete what is older than `keep_s`, and publish the heads in the log of this process.

    Lines of a log go where the database's owner does not get: who cuts the chain, or writes it
    anew, does not have these say so.
    """
    if keep_s is not None:
        with database.of(None, Origin(audit.KEEPER)).write() as session:
            count = audit.expire(session, keep_s)
        if count:
            log.info("records of the audit log have expired", extra={"count": count})
    seal_all(database)
    with database.read() as session:
        for chain in audit.list_chains(session):
            head = {"tenant": chain.tenant_id, "seq": chain.seq, "hash": chain.hash}
            log.info("audit head", extra=head)
