"""Reminds tenants of their keys that expire soon."""

import logging

from jobstore.database import Database
from jobstore.keys import remind

log = logging.getLogger(__name__)


def remind_of_keys(database: Database, within_s: float) -> None:
    """Tell the tenants' webhooks, once a key, and the log."""
    with database.write() as session:
        keys = remind(session, within_s)
    for key in keys:
        said = {"key": key.id, "tenant": key.tenant_id, "expires_at": key.expires_at}
        log.warning("a key expires soon", extra=said)
