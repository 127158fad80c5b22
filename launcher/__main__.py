"""`python -m launcher`, or `atmc serve`: the whole service on this machine, until Ctrl-C."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from jobstore.certificate import BadCertificate, Certificate
from jobstore.private import keep_private
from jobstore.settings import Settings
from launcher.folder import FolderInUse
from launcher.ports import free_port, listen_briefly
from launcher.service import StartFailed, serve


def main() -> int:
    """Run until a signal.

    Returns the exit status: 0 after an orderly end, 1 if the service did not start, 2 for wrong
    options, settings or addresses.
    """
    keep_private()
    options = _parse()
    given = {name: value for name, value in vars(options).items() if value is not None}
    workers: int = given.pop("workers")
    try:
        settings = _settings(given)
        Certificate.of(settings)
        serve(settings, workers, say=_say)
    except (FolderInUse, CannotListen, BadCertificate, ValidationError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except StartFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _say(line: str) -> None:
    try:
        print(line, flush=True)
    except BrokenPipeError:
        # Whatever read our output has ended. The service must still be ended in order.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class CannotListen(Exception):
    """The address cannot be listened on; the message says why, and what to do."""


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="atmc serve",
        description="Start API, worker, keeper and embedded broker, and end them together on "
        "Ctrl-C. Settings come from ATMC_... in the environment; the options win over them.",
    )
    parser.add_argument(
        "--data-dir",
        dest="home",
        metavar="DIR",
        type=Path,
        help="where everything is kept (default: ATMC_HOME, else ./data)",
    )
    parser.add_argument("--host", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="0 for a free one (default: 8000)")
    parser.add_argument(
        "--tls-cert",
        metavar="FILE",
        type=Path,
        help="certificate in PEM, for https (ATMC_TLS_CERT)",
    )
    parser.add_argument(
        "--tls-key", metavar="FILE", type=Path, help="its key in PEM (ATMC_TLS_KEY)"
    )
    parser.add_argument("--workers", type=int, default=1, help="Celery workers (default: 1)")
    options = parser.parse_args()
    if options.workers < 1:
        parser.error(f"--workers {options.workers}: at least 1 is needed")
    return options


def _settings(given: dict[str, Any]) -> Settings:
    settings = Settings(**given)
    if settings.port == 0:
        return Settings(**given | {"port": free_port(settings.host)})
    try:
        listen_briefly(settings.host, settings.port)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise CannotListen(
            f"cannot listen on {settings.host} port {settings.port} ({why}): "
            "choose another with --host and --port (0 takes a free one)"
        ) from error
    return settings


if __name__ == "__main__":
    sys.exit(main())
