"""Ends the parts of a launcher that was killed: `python -m launcher.watchdog`.

Its standard input is a pipe whose other end only the launcher holds, so it closes however the
launcher ends, even by SIGKILL. All parts are in the watchdog's process group, so none is missed.
"""

import os
import signal
import sys
import time

from jobstore.private import keep_private

# The time that parts have to end. A job's checkpoint is on disk already, so it is only for the
# worker to give its lease back.
GRACE_S = 5.0


def main() -> None:
    """Wait for the launcher's end, then end the process group, this process included."""
    keep_private()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE_S)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
