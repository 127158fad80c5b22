"""`python -m sandbox`: try what holds on this machine, and say so in one line.

The exit status is 1 if files, calls or network cannot be shut. With restrictions as an argument the
answer is one JSON document (`sandbox.probing`).
"""

import json
import sys
import tempfile
from dataclasses import asdict
from typing import Any

from sandbox.entering import NotHeld, Restrictions, enter
from sandbox.probing import probe
from sandbox.users import NoUser


def main() -> int:
    """Try it; returns the exit status."""
    if len(sys.argv) > 1:
        print(json.dumps(_answer(Restrictions.from_argument(sys.argv[1]))))
        return 0
    with tempfile.TemporaryDirectory(prefix="atmc-sandbox-") as folder:
        held = probe(Restrictions(folder=folder))
    print(held)
    return 1 if held.missing else 0


def _answer(wish: Restrictions) -> dict[str, Any]:
    try:
        return asdict(enter(wish))
    except NoUser as error:
        return {"no_user": str(error)}
    except NotHeld as error:
        return {"not_held": str(error)}


if __name__ == "__main__":
    sys.exit(main())
