"""A receiver of webhooks that believes only what the service has signed.

    ATMC_WEBHOOK_SECRET=whsec_... python -m examples.webhook_receiver --port 9000

Deliveries come at least once and in order for each job, so what has been heard is not acted on
again. The answer is sent before anything long is done: a receiver that takes seconds is told less.
"""

import argparse
import json
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from atmc_client.webhooks import WebhookMessage, WebhookNotVerified, verify_webhook

MOST_BYTES = 1 << 20
REMEMBERED = 10_000

Act = Callable[[WebhookMessage], None]


def receiver(secret: str, act: Act, port: int, host: str = "127.0.0.1") -> ThreadingHTTPServer:
    """Return a server that calls `act` once with each signed message; `serve_forever` runs it."""
    heard = OrderedDict[str, None]()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            if length > MOST_BYTES:
                self._answer(413)
                return
            body = self.rfile.read(length)
            try:
                # The headers name the message and its time, which are signed, too: one that was
                # recorded cannot be sent again after five minutes.
                message = verify_webhook(body, dict(self.headers.items()), secret)
            except WebhookNotVerified:
                self._answer(401)
                return
            self._answer(204)
            if message.id not in heard:
                heard[message.id] = None
                while len(heard) > REMEMBERED:
                    heard.popitem(last=False)
                act(message)

        def _answer(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    return ThreadingHTTPServer((host, port), Receiver)


def main() -> None:
    """Print what comes."""
    parser = argparse.ArgumentParser(description="Print the service's signed messages.")
    parser.add_argument("--port", type=int, default=9000)
    port = parser.parse_args().port

    def act(message: WebhookMessage) -> None:
        print(json.dumps(asdict(message)), flush=True)

    server = receiver(os.environ["ATMC_WEBHOOK_SECRET"], act, port)
    print(f"listening on http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
