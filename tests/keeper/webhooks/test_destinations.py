"""Where a delivery does not go, whatever a name, a redirect or the environment says."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import pytest

from jobstore import reaching, webhooks
from jobstore.database import Database
from jobstore.destinations import Destinations
from keeper import posting
from keeper.webhooks import Sender
from tests.keeper.webhooks.conftest import LOOPBACK, Receiver, log, send_due, sender, subscribe


def test_a_redirect_is_not_followed(database: Database, add_job: Any, receiver: Receiver) -> None:
    hook = subscribe(database, receiver.url, "job.queued")
    receiver.statuses = [307]
    add_job()
    assert send_due(database) == 1
    assert len(receiver.got) == 1
    with database.read() as session:
        delivery = webhooks.list_deliveries(session, hook).deliveries[0]
        (attempt,) = webhooks.list_attempts(session, delivery.id)
    assert (attempt.status, attempt.error) == (307, "redirects are not followed")


def error_of(database: Database, add_job: Any, url: str, using: Sender) -> str:
    """Why a delivery to the URL was not made."""
    hook = subscribe(database, url, "job.queued")
    add_job()
    assert send_due(database, using) == 1
    with database.write() as session:
        delivery = webhooks.list_deliveries(session, hook).deliveries[0]
        (attempt,) = webhooks.list_attempts(session, delivery.id)
        webhooks.delete_webhook(session, hook)
    assert attempt.status is None
    return str(attempt.error)


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "169.254.169.254"],
)
def test_a_name_that_leads_inside_is_not_called(
    database: Database, add_job: Any, receiver: Receiver, address: str
) -> None:
    url = receiver.url.replace("127.0.0.1", "hooks.example.com")
    inward = sender(database, Destinations([], []), resolve=lambda host, port: [address])
    assert "not allowed" in error_of(database, add_job, url, inward)
    assert receiver.got == []


def test_a_name_with_one_address_inside_is_not_called_at_all(
    database: Database, add_job: Any, receiver: Receiver
) -> None:
    url = receiver.url.replace("127.0.0.1", "hooks.example.com")
    mixed = sender(database, resolve=lambda host, port: ["127.0.0.1", "10.0.0.1"])
    assert "not allowed" in error_of(database, add_job, url, mixed)
    assert receiver.got == []


def test_a_name_that_changes_between_check_and_connection_leads_nowhere_else(
    database: Database, add_job: Any, receiver: Receiver
) -> None:
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    asked: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    hook = subscribe(database, receiver.url.replace("127.0.0.1", "hooks.example.com"))
    add_job()
    using = sender(database, resolve=rebinding)
    assert send_due(database, using) == 1
    # Asked once; connected to what was answered then, under the name.
    assert asked == ["hooks.example.com"]
    assert receiver.got[0][0]["Host"].startswith("hooks.example.com:")
    add_job()
    assert send_due(database, using) == 1
    assert len(receiver.got) == 1
    assert [statuses for _, statuses, _ in log(database, hook)] == [[204], [None]]


def test_a_name_that_does_not_resolve_is_a_failed_try(database: Database, add_job: Any) -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror("unknown")

    using = sender(database, resolve=unknown)
    assert "no connection" in error_of(database, add_job, "http://a.example/", using)


def test_an_operator_s_list_of_hosts_holds_for_webhooks_that_are_there(
    database: Database, add_job: Any, receiver: Receiver
) -> None:
    using = sender(database, Destinations(["hooks.example.com"], ["127.0.0.0/8"]))
    assert "operator" in error_of(database, add_job, receiver.url, using)
    assert receiver.got == []


@contextmanager
def dripping() -> Iterator[str]:
    """A receiver that sends a byte now and then and never an answer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def drip() -> None:
            connection, _ = listener.accept()
            try:
                while True:
                    connection.sendall(b"H")
                    time.sleep(0.02)
            except OSError:
                pass

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        thread.join(5)


def test_a_receiver_that_drips_is_left(
    database: Database, add_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posting, "WHOLE_S", 0.3)
    with dripping() as url:
        began = time.monotonic()
        error = error_of(database, add_job, url, sender(database))
        assert time.monotonic() - began < 5
    assert error in ("no answer in time", "no connection: RemoteProtocolError")


def test_a_name_that_is_looked_up_for_ever_is_left(
    database: Database, add_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaching, "LOOK_UP_S", 0.2)
    free = threading.Event()

    def silent(host: str, port: int) -> list[str]:
        free.wait(60)
        return ["127.0.0.1"]

    began = time.monotonic()
    error = error_of(database, add_job, "http://a.example/", sender(database, resolve=silent))
    assert time.monotonic() - began < 5
    free.set()
    assert error == "no answer in time"


@contextmanager
def mute() -> Iterator[int]:
    """The port of a receiver that takes every connection and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield listener.getsockname()[1]


def test_a_name_with_many_addresses_has_no_more_time(
    database: Database, add_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posting, "WHOLE_S", 0.5)
    # These are of the loopback network, and a full queue of connections answers no more.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for each in fillers:
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        using = sender(database, resolve=lambda host, port: ["127.0.0.1"] * 50)
        began = time.monotonic()
        error = error_of(database, add_job, f"http://a.example:{port}/", using)
        assert time.monotonic() - began < 5
        for each in fillers:
            each.close()
    assert error == "no answer in time"


def test_a_receiver_that_let_its_time_pass_has_less_until_it_answers(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posting, "WHOLE_S", 1.0)
    monkeypatch.setattr(posting, "BRIEF_S", 0.1)
    poster = posting.Poster(LOOPBACK)

    def took(url: str) -> float:
        began = time.monotonic()
        with pytest.raises(httpcore.TimeoutException):
            poster.post(url, [("Content-Length", "2")], b"{}")
        return time.monotonic() - began

    with mute() as port:
        assert took(f"http://127.0.0.1:{port}/first") >= 0.9
        assert took(f"http://127.0.0.1:{port}/second") < 0.8
        monkeypatch.setattr(posting, "PROBE_S", 0.0)
        assert took(f"http://127.0.0.1:{port}/third") >= 0.9
    # Another receiver has its whole time, and one that answers has it again.
    free = threading.Event()
    receiver.busy = lambda: free.wait(60)
    took(receiver.url)
    free.set()
    monkeypatch.setattr(posting, "PROBE_S", 60.0)
    assert poster.post(receiver.url, [("Content-Length", "2")], b"{}") == 204
    receiver.busy = lambda: time.sleep(0.3)
    assert poster.post(receiver.url, [("Content-Length", "2")], b"{}") == 204


def test_the_proxies_of_the_environment_are_not_used(
    database: Database, add_job: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    subscribe(database, receiver.url, "job.queued")
    add_job()
    send_due(database)
    assert len(receiver.got) == 1
