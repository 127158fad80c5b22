"""Shuts a process in before it reads what a stranger wrote: files, calls, network, user, limits.

`enter` is called by the process itself, in which nothing but Python has run so far. It imports the
standard library alone, so the API's process that looks into files can use it as well as a job's.
What holds is found out by trying, and said in one line. docs/security.md has the claims and their
tests, and `python -m sandbox` tries what holds on this machine.
"""

from sandbox.entering import PROCESSES, Held, Mode, NotHeld, Restrictions, enter
from sandbox.probing import probe

__all__ = ["PROCESSES", "Held", "Mode", "NotHeld", "Restrictions", "enter", "probe"]
