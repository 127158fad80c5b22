"""Prints what is in a file, and writes its weights for others to use.

python -m atmc_reader FILE [--json] [--output WEIGHTS.npz]
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from atmc_reader.composition import state_dict
from atmc_reader.files import MALFORMED, open_file
from atmc_reader.inspection import inspect

_BAD_FILE = 2


def main() -> int:
    parser = argparse.ArgumentParser("python -m atmc_reader", description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument(
        "--output", type=Path, metavar="NPZ", help="write the composed float tensors there, by name"
    )
    arguments = parser.parse_args()
    try:
        content = arguments.file.read_bytes()
        file = open_file(content)
        if file.tensors is None:
            raise ValueError(
                f"this file of version {file.version} does not say what tensors {file.architecture}"
                " has: save it anew with atmc_core, which knows them"
            )
        described = inspect(content, file, file.tensors)
        if arguments.output is not None:
            contents, _ = file.read(file.tensors)
            with arguments.output.open("wb") as output:
                np.savez(output, **state_dict(file.tensors, contents))  # type: ignore[arg-type]
    except OSError as error:
        print(f"{arguments.file}: {error.strerror}", file=sys.stderr)
        return _BAD_FILE
    except (*MALFORMED, MemoryError) as error:
        print(f"{arguments.file}: not a readable artifact: {error}", file=sys.stderr)
        return _BAD_FILE
    print(json.dumps(described) if arguments.json else _table(described))
    return 0


def _table(described: dict[str, Any]) -> str:
    """The description for people."""
    head = (
        f"{described['architecture']}, {described['num_classes']} classes: "
        f"{described['nonzeros']:,} non-zeros of {described['bits']} bits in "
        f"{described['file_bytes']:,} bytes (format {described['version']})"
    )
    lines = [head, "", f"{'part':<16}{'bytes':>12}{'bound':>12}"]
    for name, part in described["parts"].items():
        bound = f"{part['bound']:>12,.0f}" if "bound" in part else ""
        lines.append(f"{name:<16}{part['bytes']:>12,.0f}{bound}")
    lines += ["", f"{'weight':<32}{'shape':<20}{'U':>9}{'V':>9}{'C':>9}"]
    for weight in described["weights"]:
        counts = "".join(f"{weight[role]['nonzeros']:>9,}" for role in "uvc")
        lines.append(f"{weight['name']:<32}{'x'.join(map(str, weight['shape'])):<20}{counts}")
    lines += ["", f"other tensors: {len(described['others'])}"]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
