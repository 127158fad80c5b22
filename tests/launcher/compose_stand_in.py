"""What `docker compose` does, in words of `containers.Containers`: a stand-in where no engine runs.

`serve` answers for a `docker` of its own; whatever a service is to run is run by that process
itself, with its own standard input and output.
"""

import json
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.launcher.containers import SERVICES, Containers

_DOCKER = f"""#!{sys.executable}
import json, os, socket, sys
asked = socket.socket(socket.AF_UNIX)
asked.connect(os.environ["STAND_IN"])
asked.sendall(json.dumps(sys.argv[1:]).encode() + b"\\n")
answer = json.loads(asked.makefile().readline())
if "run" in answer:
    os.execvpe(answer["run"][0], answer["run"], answer["environment"])
print(answer["say"])
sys.exit(answer["status"])
"""
_USUAL = ("postgres", "valkey", "seaweedfs", "migrate", "api", "keeper", "worker-cpu")
# Words after which another one belongs to them.
_WITH_VALUE = ("--profile", "--scale", "--entrypoint", "--tail")


class StandIn:
    """Carries out one command line after the other."""

    def __init__(self, containers: Containers) -> None:
        self.containers = containers

    def answer(self, words: list[str]) -> dict[str, Any]:
        """What `docker` is to say, or to run."""
        assert words.pop(0) == "compose", words
        options, (verb, *words) = _split(words)
        more, words = _split(words)
        carried_out = getattr(self, f"_{verb}")(options | more, words)
        return carried_out if isinstance(carried_out, dict) else {"say": carried_out, "status": 0}

    def _build(self, _: dict[str, str], __: list[str]) -> str:
        return "no engine builds images here"

    def _up(self, options: dict[str, str], words: list[str]) -> str:
        self.containers.make_secrets()
        wanted, running = words or _USUAL, self.containers.processes
        if "--force-recreate" in options:
            self._stop({}, [name for name in wanted if name in running])
        started = [name for name in wanted if name not in running]
        self.containers.start_well(*started)
        for number in range(2, 1 + int(options.get("--scale", "=1").partition("=")[2])):
            self.containers.start(words[0], number)
        return f"started {' '.join(started)}"

    def _stop(self, _: dict[str, str], words: list[str]) -> str:
        for name in words:
            for each in [p for p in self.containers.processes if p.partition("/")[0] == name]:
                self.containers.stop(each)
        return f"stopped {' '.join(words)}"

    def _ps(self, _: dict[str, str], __: list[str]) -> str:
        return "\n".join(self.containers.processes)

    def _logs(self, options: dict[str, str], words: list[str]) -> str:
        lines = (self.containers.folder / f"{words[0]}.log").read_text().splitlines()
        return "\n".join(lines[-int(options["--tail"]) :])

    def _exec(self, _: dict[str, str], words: list[str]) -> dict[str, Any]:
        name, *command = words
        assert name in self.containers.processes, f"{name} does not run"
        return self._run_in(name, command)

    def _run(self, options: dict[str, str], words: list[str]) -> dict[str, Any]:
        name, *command = words
        own = [options["--entrypoint"]] if "--entrypoint" in options else []
        return self._run_in(name, [*own, *(command or SERVICES[name]["command"])])

    def _run_in(self, name: str, command: list[str]) -> dict[str, Any]:
        self.containers.deliver_secrets(name)
        run = [self.containers.here(name, word) for word in command]
        return {"run": run, "environment": self.containers.environment(name)}


def _split(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """The options at the beginning, and the rest."""
    options = {}
    while words and words[0].startswith("-"):
        name, *words = words
        options[name] = words.pop(0) if name in _WITH_VALUE else ""
    return options, words


@contextmanager
def serve(containers: Containers) -> Iterator[dict[str, str]]:
    """Answer while the block runs; yields the variables that a shell with this `docker` needs."""
    stand_in, place = StandIn(containers), containers.folder / "stand-in"
    docker: Path = containers.tools / "docker"
    docker.write_text(_DOCKER)
    docker.chmod(0o755)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            words = json.loads(self.rfile.readline())
            try:
                answer = stand_in.answer(words)
            except Exception as error:  # shown where the command was typed, whatever it is
                answer = {"say": f"{words}: {error!r}", "status": 1}
            self.wfile.write(json.dumps(answer).encode() + b"\n")

    with socketserver.ThreadingUnixStreamServer(str(place), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"STAND_IN": str(place)}
        server.shutdown()
