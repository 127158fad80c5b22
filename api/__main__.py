"""`python -m api`: serve on `ATMC_HOST` and `ATMC_PORT`."""

import ipaddress
import sys

import uvicorn

from api.app import create_app
from jobstore.settings import Settings

# Long-polls are cut short at the end rather than waited for.
SHUTDOWN_S = 2


def main() -> int:
    """Serve until SIGINT or SIGTERM; 2 for settings that cannot be served."""
    try:
        settings = Settings()
        check_host(settings.host)
        app = create_app(settings)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    uvicorn.run(
        app,
        host=settings.host,
        port=settings.port,
        timeout_graceful_shutdown=SHUTDOWN_S,
        server_header=False,
    )
    return 0


def check_host(host: str) -> None:
    """Raise ValueError unless `host` can only be reached from this machine."""
    if host == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ValueError(
            f"ATMC_HOST={host}: the service asks nobody for a key yet, so it listens on a "
            "loopback address only. Set ATMC_HOST=127.0.0.1; put a proxy that asks in front of it."
        )


if __name__ == "__main__":
    sys.exit(main())
