"""Sends the deliveries that are due, signed as the Standard Webhooks specification says.

The database says which deliveries are due, so any number of senders may run. If a sender is killed,
the deliveries that it was sending are delayed by a minute.
"""

import json
import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

import httpcore
from standardwebhooks import Webhook as Signer

from jobstore import traces
from jobstore.database import Database
from jobstore.deliveries import Outcome, Outgoing, claim, record
from jobstore.destinations import Forbidden
from jobstore.logs import brief
from jobstore.retry import TRANSIENT, GaveUp, retry
from jobstore.vault import Unreadable, Vault
from keeper.posting import Poster

log = logging.getLogger(__name__)

#: The time between two looks for deliveries that are due.
POLL_S = 1.0
#: The same after a delivery was due, because the same webhook may have more.
BUSY_POLL_S = 0.05
# The number of deliveries that are sent at the same time, those of a tenant at most
# `deliveries.AT_ONCE_OF_A_TENANT`. Nearly all of them only wait for an answer.
_AT_ONCE = 32
# The longest time between two looks while the database cannot be reached.
_LONGEST_DELAY_S = 60.0


def signed(outgoing: Outgoing, secret: str, content: bytes, at: int) -> dict[str, str]:
    """Return the headers of a delivery; `at` is the Unix time at which it is sent."""
    moment = datetime.fromtimestamp(at, UTC)
    signature = Signer(secret).sign(outgoing.id, moment, content.decode())
    return {
        "Content-Type": "application/json",
        "User-Agent": "atmc",
        "webhook-id": outgoing.id,
        "webhook-timestamp": str(at),
        "webhook-signature": signature,
    }


def _trace_headers(span: traces.Span) -> dict[str, str]:
    """Return the header by which a receiver goes on in the trace.

    `tracestate` stays here: it is what other systems of the operator's noted for themselves.
    """
    carrier = span.carrier() or {}
    return {name: value for name, value in carrier.items() if name == "traceparent"}


class Sender:
    """Sends the deliveries that are due, several at once, but one at a time to each webhook."""

    def __init__(
        self, database: Database, poster: Poster, vault: Vault, stop: threading.Event
    ) -> None:
        self._database = database
        self._vault = vault
        self._poster = poster
        self._stop = stop

    def run(self) -> None:
        """Send until `stop` is set; if sending fails for good, this sets `stop` itself."""
        try:
            self._send_all()
        except Exception:
            log.exception("webhooks cannot be sent any more")
        finally:
            self._stop.set()

    def seal_anew(self) -> None:
        """Have the first key seal every webhook's secret, those that nobody sealed included.

        So an older key may go once this has been done.
        """
        try:
            while True:
                with self._database.write() as session:
                    count = self._vault.reseal(session)
                if count == 0:
                    return
                log.info("secrets of webhooks sealed by the first key", extra={"count": count})
        except Unreadable as error:
            log.error("a webhook's secret cannot be read: %s", error)

    def _send_all(self) -> None:
        retry(self.seal_anew, what="sealing the secrets of webhooks", until=self._stop.is_set)
        delay_s = POLL_S
        running: set[Future[None]] = set()
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="webhook") as pool:
            while not self._stop.wait(delay_s):
                running = {future for future in running if not future.done()}
                try:
                    due = self.claim(_AT_ONCE - len(running))
                    delay_s = BUSY_POLL_S if due else POLL_S
                except TRANSIENT as error:
                    delay_s = min(2 * max(delay_s, POLL_S), _LONGEST_DELAY_S)
                    log.warning("webhooks wait: %s", brief(error), extra={"next_in_s": delay_s})
                    continue
                running |= {pool.submit(self.send, outgoing) for outgoing in due}

    def claim(self, limit: int) -> list[Outgoing]:
        """Claim up to `limit` deliveries that are due."""
        if limit == 0:
            return []
        with self._database.write() as session:
            return claim(session, limit)

    def send(self, outgoing: Outgoing) -> None:
        """Try a delivery once, and record the outcome."""
        ids: dict[str, object] = {
            "webhook": outgoing.webhook_id,
            "delivery": outgoing.id,
            "tenant": outgoing.tenant,
        }
        if outgoing.job_id is not None:
            ids["job"] = outgoing.job_id
        if outgoing.trace is not None:
            ids["trace_id"] = traces.trace_id_of(outgoing.trace)
        outcome = self._try(outgoing)
        # The URL is not logged, because it may contain a secret.
        said = {"status": outcome.status, "error": outcome.error, "try": outgoing.number}
        log.info("webhook", extra=ids | said)

        def write_down() -> None:
            with self._database.write() as session:
                record(session, outgoing, outcome)

        try:
            retry(write_down, what="recording a delivery", until=self._stop.is_set)
        except GaveUp:
            log.warning("a delivery is not recorded and will be made again", extra=ids)

    def _try(self, outgoing: Outgoing) -> Outcome:
        with traces.begin(
            "POST",
            parent=outgoing.trace,
            kind="client",
            # Neither the URL nor its host is told: both are the tenant's, and may be secret.
            attributes={
                "http.request.method": "POST",
                "http.request.resend_count": outgoing.number - 1,
                "atmc.webhook.id": outgoing.webhook_id,
                "atmc.delivery.id": outgoing.id,
            },
        ) as span:
            outcome = self._post(outgoing, span)
            if outcome.status is not None:
                span.annotate({"http.response.status_code": outcome.status})
            if not outcome.delivered:
                said = str(outcome.error).partition(":")[0].replace(" ", "_")
                span.fail(said if outcome.status is None else str(outcome.status))
        return outcome

    def _post(self, outgoing: Outgoing, span: traces.Span) -> Outcome:
        content = json.dumps(outgoing.body, separators=(",", ":")).encode()
        status, error, began = None, None, time.monotonic()
        try:
            headers = signed(outgoing, self._vault.open(outgoing.sealed), content, int(time.time()))
            headers |= _trace_headers(span)
            status = self._poster.post(outgoing.url, list(headers.items()), content)
            if 300 <= status < 400:
                error = "redirects are not followed"
        except Forbidden as refused:
            error = f"not allowed: {refused}"
        except Unreadable as unreadable:
            log.error("a webhook's secret cannot be read: %s", unreadable)
            error = "the service failed"
        except (httpcore.TimeoutException, TimeoutError):
            error = "no answer in time"
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError) as failed:
            error = f"no connection: {type(failed).__name__}"
        except Exception:
            # A delivery that cannot be sent because of a bug must not stop the others.
            log.exception("a mistake of ours", extra={"delivery": outgoing.id})
            error = "the service failed"
        return Outcome(status, error, time.monotonic() - began)
