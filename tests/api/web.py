"""A web server over TLS, where files lie that the service fetches."""

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import trustme


class Web(ThreadingHTTPServer):
    """`answers` has status, headers and body by path, `asked` what was; `authority` is a file."""

    answers: dict[str, tuple[int, dict[str, str], bytes]]
    asked: list[tuple[str, str, str | None]]
    authority: Path

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        self.server.asked.append((self.command, self.path, self.headers["Authorization"]))
        status, headers, body = self.server.answers.get(self.path, (404, {}, b""))
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving_web(folder: Path) -> Iterator[Web]:
    """Run one on a free port, with an authority of its own whose certificate lies in the folder."""
    authority, server = trustme.CA(), Web(("127.0.0.1", 0), _Handler)
    server.answers, server.asked, server.authority = {}, [], folder / "authority.pem"
    authority.cert_pem.write_to_path(str(server.authority))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
