"""Finds out what would hold for a child, by a process that enters the sandbox and ends."""

import json
import subprocess
import sys

from sandbox.entering import Held, NotHeld, Restrictions
from sandbox.users import NoUser

_TIMEOUT_S = 60.0


def probe(wish: Restrictions) -> Held:
    """Try these restrictions in a process of its own; returns what holds.

    Raises `NotHeld` for what is required and does not hold, and for a sandbox that cannot be
    entered at all; `NoUser` if the user cannot be taken.
    """
    command = [sys.executable, "-m", "sandbox", wish.to_argument()]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=_TIMEOUT_S, stdin=subprocess.DEVNULL
    )
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise NotHeld(f"the sandbox cannot be entered here: {done.stderr[-2000:]}") from None
    match answer:
        case {"words": list(words), "missing": list(missing)}:
            return Held(words, missing)
        case {"no_user": str(why)}:
            raise NoUser(why)
        case _:
            raise NotHeld(answer["not_held"])
