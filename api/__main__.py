"""`python -m api`: serve on `ATMC_HOST` and `ATMC_PORT`."""

import asyncio
import contextlib
import ctypes
import gc
import logging
import socket
import sys
import time

import uvicorn

from api.app import create_app
from api.connections import Connection, raise_descriptors
from api.inspection.process import shut_in, warm_up
from api.services import Services
from jobstore import traces
from jobstore.certificate import Certificate
from jobstore.logs import configure_logs
from jobstore.private import keep_private
from jobstore.settings import Settings
from sandbox import NotHeld

log = logging.getLogger(__name__)

# uvicorn ticks ten times a second.
RENEWAL_TICKS = 100
_TICK_S = 0.1


# glibc's mallopt(3): how many heaps threads make, and from what size on memory is not the heap's.
_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3


def give_memory_back() -> None:
    """Have the C library return large buffers at once, and threads share two heaps.

    By default each thread keeps what the pieces of an upload took: large ones cost 70 MiB for good.
    Another C library is left as it is.
    """
    with contextlib.suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_ARENA_MAX, 2)
        mallopt(_M_MMAP_THRESHOLD, 1 << 20)


def main() -> int:
    """Serve until SIGINT or SIGTERM; 2 for settings that cannot be served."""
    keep_private()
    give_memory_back()
    try:
        settings = Settings()
        configure_logs(settings.log_format)
        traces.configure("api")
        certificate = Certificate.of(settings)
        app = create_app(settings)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        held = shut_in(settings.sandbox)
    except NotHeld as error:
        print(f"error: ATMC_SANDBOX=require: {error}", file=sys.stderr)
        return 2
    log.info("what looks into files: %s", held)
    Connection.max_connections = raise_descriptors()
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=Connection,
        loop="api.connections:Loop",
        ws="none",
        # Down to whole seconds, as uvicorn's type has it.
        timeout_graceful_shutdown=int(settings.finish_s),
        server_header=False,
        # Which proxies are believed is ours to say (`ATMC_TRUSTED_PROXIES`).
        proxy_headers=False,
        ssl_certfile=certificate.cert if certificate else None,
        ssl_keyfile=certificate.key if certificate else None,
        # Our own log of requests has the id and leaves the query out.
        access_log=False,
        log_config=None,
    )
    # Ctrl-C is an orderly end; uvicorn raises it again once all is done.
    with contextlib.suppress(KeyboardInterrupt):
        Server(config, app.state.services, certificate).run()
    return 0


class Server(uvicorn.Server):
    """uvicorn, but it takes leave: first it is not ready any more, then whoever waits is answered.

    Between the two it goes on for `ATMC_DRAIN_S`, so that those who lead callers here can learn of
    it, and asks each caller to connect anew, which then is to another process.
    """

    def __init__(
        self, config: uvicorn.Config, services: Services, certificate: Certificate | None
    ) -> None:
        super().__init__(config)
        self._services = services
        self._certificate = certificate

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does; what there is by then stays, and is not searched for garbage.

        To look through it, the framework's models above all, held up every request by 150 ms.
        """
        await super().startup(sockets)
        warm_up()
        gc.collect()
        gc.freeze()

    async def on_tick(self, counter: int) -> bool:
        """Look now and then whether the certificate has been renewed."""
        due = counter % RENEWAL_TICKS == 0
        if due and self._certificate is not None and self.config.ssl is not None:
            self._certificate.renew(self.config.ssl)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drain, answer the long-polls and end the event streams, then end as uvicorn does."""
        await self._drain()
        self._services.watcher.release()
        await super().shutdown(sockets)
        # Here, since uvicorn ends the process by the signal itself.
        traces.shut_down()

    async def _drain(self) -> None:
        self._services.leaving.set()
        self.config.encoded_headers.append((b"connection", b"close"))
        until = time.monotonic() + self._services.settings.drain_s
        while time.monotonic() < until and not self.force_exit:
            # The answers' date goes on, too.
            await self.on_tick(0)
            await asyncio.sleep(_TICK_S)


if __name__ == "__main__":
    sys.exit(main())
