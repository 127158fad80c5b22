"""Ends the parts when the launcher no longer can: `python -m launcher.watchdog`.

Its standard input is a pipe whose other end only the launcher holds, and which closes however
the launcher ends, SIGKILL included. All parts are in the watchdog's process group, so no list of
processes has to be kept, and none can be missed.
"""

import os
import signal
import sys
import time

# A job's checkpoint is on disk already; this is for the worker to give its lease back.
GRACE_S = 5.0


def main() -> None:
    """Wait for the launcher's end, then end the process group, this process included."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE_S)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
