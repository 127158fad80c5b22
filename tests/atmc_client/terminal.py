"""A terminal that `atmc` writes to."""

import os
import pty
import re
import signal
import subprocess
import sys

from tests.atmc_client.conftest import ROOT


class Terminal:
    """An `atmc` command whose standard error is a terminal."""

    def __init__(self, *arguments: str) -> None:
        self.ours, its = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "atmc_client", *arguments],
            cwd=ROOT,
            env=os.environ | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=its,
            text=True,
            start_new_session=True,
            # Whoever started the tests may have had them ignore it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(its)
        self._seen = b""

    def until(self, text: str) -> None:
        """Read on until the text stands there."""
        while text not in self.plain:
            self._seen += os.read(self.ours, 65_536)

    def end(self) -> tuple[int, str]:
        """The exit code and what went to standard output."""
        try:
            while more := os.read(self.ours, 65_536):
                self._seen += more
        except OSError:
            pass  # The other end is closed.
        os.close(self.ours)
        written, _ = self.process.communicate(timeout=20)
        return self.process.returncode, written

    @property
    def plain(self) -> str:
        """What was written so far, without colours and movements."""
        # A read may end within a character.
        return re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", self._seen.decode(errors="ignore"))
