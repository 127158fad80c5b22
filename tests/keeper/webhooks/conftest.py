"""A receiver of webhooks, and what it is sent."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from sqlalchemy import update

from jobstore import deliveries, jobs, leases, uploads, webhooks
from jobstore.database import Database
from jobstore.destinations import Destinations
from jobstore.dialects import clock
from jobstore.states import JobState
from jobstore.tables import Job, WebhookDelivery
from jobstore.tenants import get_or_create_tenant
from jobstore.vault import Vault
from keeper.posting import Poster
from keeper.webhooks import Sender
from tests.bench import SECRETS_KEY

LOOPBACK = Destinations([], ["127.0.0.0/8"])


class Receiver:
    """A server that answers by `statuses`, the last for ever, and keeps what it was sent."""

    def __init__(self) -> None:
        self.statuses = [204]
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.busy: Callable[[], object] = lambda: None
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((dict(self.headers.items()), body))
                receiver.busy()
                statuses = receiver.statuses
                self.send_response(statuses.pop(0) if len(statuses) > 1 else statuses[0])
                self.send_header("Location", f"{receiver.url}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"

    def types(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.got]


@contextmanager
def listening() -> Iterator[Receiver]:
    """A receiver that is there."""
    made = Receiver()
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with listening() as made:
        yield made


@pytest.fixture
def add_job(database: Database) -> Callable[..., Job]:
    """Queues a job."""
    upload = {"filename": "f", "summary": {}, "sha256": "a" * 64, "bytes": 1}
    model = {"format": "torch", "architecture": "lenet", "normalization": None, **upload}

    def add(whose: Database = database, **changes: Any) -> Job:
        with whose.write() as session:
            files = {
                "model": uploads.create_model(session, **model),
                "dataset": uploads.create_dataset(session, **upload),
            }
            spec = {"method": "atmc"}
            return jobs.create_job(
                session, spec=spec, max_attempts=3, time_limit_s=60, **files, **changes
            )

    return add


VAULT = Vault([SECRETS_KEY])


def hook(url: str, *events: str) -> webhooks.NewWebhook:
    sealed = VAULT.seal(webhooks.new_secret())
    return webhooks.NewWebhook(url, events or webhooks.EVENTS, sealed)


def secret_of(database: Database, webhook_id: str) -> str:
    with database.read() as session:
        return VAULT.open(webhooks.get_webhook(session, webhook_id).secret)


def subscribe(database: Database, url: str, *events: str, tenant: str = "default") -> str:
    new = hook(url, *events)
    with database.write() as session:
        get_or_create_tenant(session, tenant)
    with database.of(tenant).write() as session:
        return webhooks.create_webhook(session, new).id


def sender(
    database: Database,
    destinations: Destinations = LOOPBACK,
    vault: Vault = VAULT,
    **options: Any,
) -> Sender:
    return Sender(database, Poster(destinations, **options), vault, threading.Event())


def send_due(database: Database, using: Sender | None = None) -> int:
    """Send all that is due now, one after the other; returns how many tries that took."""
    using = using or sender(database)
    count = 0
    while due := using.claim(8):
        for outgoing in due:
            using.send(outgoing)
            count += 1
    return count


def make_due(database: Database) -> None:
    """Let the time pass until the next try."""
    with database.write() as session:
        waits = update(WebhookDelivery).where(WebhookDelivery.due_at.is_not(None))
        session.execute(waits.values(due_at=clock(-1)))


def log(database: Database, webhook_id: str) -> list[tuple[str, list[int | None], bool]]:
    """Each delivery's type, the statuses of its tries, and whether it waits; oldest first."""
    with database.read() as session:
        found = webhooks.list_deliveries(session, webhook_id).deliveries[::-1]
        return [
            (d.type, [a.status for a in webhooks.list_attempts(session, d.id)], bool(d.due_at))
            for d in found
        ]


def run_job(database: Database) -> None:
    """Claim the oldest job and have it fail."""
    with database.write() as session:
        claimed = leases.claim(session, "tester", lease_s=60)
        assert claimed is not None
        error = leases.JobError("time_limit", "too long")
        leases.finish(session, claimed[1], JobState.FAILED, error=error)


def give_up(database: Database) -> None:
    for _ in range(len(deliveries.RETRY_AFTER_S) + 1):
        make_due(database)
        send_due(database)
