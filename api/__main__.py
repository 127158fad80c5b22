"""`python -m api`: serve on `ATMC_HOST` and `ATMC_PORT`."""

import contextlib
import socket
import sys

import uvicorn

from api.app import create_app
from api.jobs.waiting import JobWatcher
from jobstore.logs import configure_logs
from jobstore.settings import Settings

# Uploads and downloads that take longer are cut off at the end.
SHUTDOWN_S = 2


def main() -> int:
    """Serve until SIGINT or SIGTERM; 2 for settings that cannot be served."""
    try:
        settings = Settings()
        app = create_app(settings)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    configure_logs(settings.log_format)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        timeout_graceful_shutdown=SHUTDOWN_S,
        server_header=False,
        # Ours tells the id, and not the query; uvicorn's own lines go the way of all others.
        access_log=False,
        log_config=None,
    )
    # Ctrl-C is an orderly end; uvicorn raises it again once all is done.
    with contextlib.suppress(KeyboardInterrupt):
        Server(config, app.state.services.watcher).run()
    return 0


class Server(uvicorn.Server):
    """uvicorn, but whoever waits for a job is answered at the end instead of cut off."""

    def __init__(self, config: uvicorn.Config, watcher: JobWatcher) -> None:
        super().__init__(config)
        self._watcher = watcher

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer the long-polls and end the event streams, then end as uvicorn does."""
        self._watcher.release()
        await super().shutdown(sockets)


if __name__ == "__main__":
    sys.exit(main())
