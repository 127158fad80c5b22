"""Webhooks go over TLS to who is what the URL names, and to nobody else."""

import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpcore
import pytest
import trustme

from jobstore.destinations import Destinations
from keeper.posting import Poster

NAME = "hooks.example.com"


class Receiver(ThreadingHTTPServer):
    """Answers 204 to whoever trusts its certificate."""

    def __init__(self, certificate: trustme.LeafCert) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.got: list[bytes] = []

    def handle_error(self, *_: object) -> None:
        """Who does not trust it goes away."""


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.server.got.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receive() -> Iterator[Callable[[trustme.LeafCert], Receiver]]:
    """Starts receivers."""
    started: list[Receiver] = []

    def start(certificate: trustme.LeafCert) -> Receiver:
        started.append(Receiver(certificate))
        threading.Thread(target=started[-1].serve_forever, daemon=True).start()
        return started[-1]

    yield start
    for each in started:
        each.shutdown()
        each.server_close()


@pytest.fixture
def post(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Receiver, trustme.CA, bytes], int]:
    """Posts as the keeper does where the operator trusts an authority of their own."""

    def send(receiver: Receiver, trusted: trustme.CA, content: bytes) -> int:
        trusted.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
        poster = Poster(Destinations([], ["127.0.0.0/8"]), lambda host, port: ["127.0.0.1"])
        url = f"https://{NAME}:{receiver.server_port}/hook"
        return poster.post(url, [("Content-Type", "application/json")], content)

    return send


def test_a_receiver_of_a_trusted_authority_s_is_told(receive, post) -> None:
    authority = trustme.CA()
    receiver = receive(authority.issue_cert(NAME))
    assert post(receiver, authority, b'{"type": "job.succeeded"}') == 204
    assert receiver.got == [b'{"type": "job.succeeded"}']


@pytest.mark.parametrize(
    ("issue", "reason"),
    [
        (lambda trusted: trusted.issue_cert("other.example.com"), "Hostname mismatch"),
        # The address alone is not who was meant.
        (lambda trusted: trusted.issue_cert("127.0.0.1"), "Hostname mismatch"),
        (lambda trusted: trustme.CA().issue_cert(NAME), "unable to get local issuer"),
    ],
    ids=["another's name", "its address", "an unknown authority"],
)
def test_nobody_else_is(receive, post, issue, reason: str) -> None:
    authority = trustme.CA()
    receiver = receive(issue(authority))
    with pytest.raises(httpcore.ConnectError, match=reason):
        post(receiver, authority, b"secret")
    assert receiver.got == []
