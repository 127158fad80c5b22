"""`python -m requirements`, or `make lock`: write the hashes of what `constraints.txt` pins.

`all.txt` has every pin, `api.txt` and `worker.txt` those that the images need. Each pin has the
SHA-256 of every file of the release that the index lists, so that all platforms are covered.
"""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "requirements"
CONSTRAINTS = ROOT / "constraints.txt"

UNHASHED = frozenset({"torch", "torchvision"})
"""What comes in builds of one's own choice (CPU, CUDA) from indexes with hashes of their own."""

EXTRAS = {"api.txt": ("api", "keeper", "otel"), "worker.txt": ("worker", "otel")}
# The project itself is built without isolation, so what builds it is among what was checked.
BUILD = "setuptools"

_HEAD = "# Written by `make lock` from constraints.txt. Install with: pip install --require-hashes"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


def normalized(name: str) -> str:
    """Return a project's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(text: str) -> dict[str, str]:
    """Return the releases of a requirements file by their normalised names."""
    return {normalized(name): release for name, release in _PIN.findall(text)}


def main() -> None:
    """Write the three files; asks the index."""
    wanted = {name: v for name, v in pins(CONSTRAINTS.read_text()).items() if name not in UNHASHED}
    listed = "\n".join(f"{name}=={release}" for name, release in wanted.items())
    hashed = _compile("-", "--no-deps", "--generate-hashes", given=listed)
    blocks = {normalized(re.split("[ =]", block)[0]): block for block in _blocks(hashed)}
    _write("all.txt", blocks.values())
    for file, extras in EXTRAS.items():
        options = [option for extra in extras for option in ("--extra", extra)]
        names = pins(_compile("pyproject.toml", *options, "--constraints", str(CONSTRAINTS)))
        # Builds of torch for a GPU need what those for a CPU do not: that goes with torch.
        needed = (names.keys() | {BUILD}) & blocks.keys()
        _write(file, (blocks[name] for name in sorted(needed)))


def _compile(source: str, *options: str, given: str = "") -> str:
    command = [sys.executable, "-m", "uv", "pip", "compile", "--no-config", "--quiet"]
    form = ["--universal", "--python-version", "3.11", "--no-header", "--no-annotate"]
    done = subprocess.run(
        [*command, *form, *options, source],
        input=given,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return done.stdout


def _blocks(text: str) -> list[str]:
    return re.findall(r"^\S.*(?:\n .*)*", text, re.MULTILINE)


def _write(name: str, blocks: Iterable[str]) -> None:
    (FOLDER / name).write_text("\n".join([_HEAD, *blocks]) + "\n")


if __name__ == "__main__":
    main()
