"""Evaluating processes forked from one that has imported torch: importing costs seconds a job."""

import os
import sys
from multiprocessing import get_context
from multiprocessing.connection import Connection

from atmc_core.evaluation import process

_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload([process.__name__])


class ForkedProcess:
    """What `FreshEvaluator` uses of a `subprocess.Popen`.

    The server that forks it has imported the evaluation and knows nothing of any job.
    """

    def __init__(self) -> None:
        questions, asked = _CONTEXT.Pipe(duplex=False)
        answered, answers = _CONTEXT.Pipe(duplex=False)
        self._process = _CONTEXT.Process(target=_answer, args=(questions, answers), daemon=True)
        self._process.start()
        # Only the new process holds its own ends, so that each side sees the other's end.
        questions.close()
        answers.close()
        self.stdin = os.fdopen(os.dup(asked.fileno()), "wb")
        self.stdout = os.fdopen(os.dup(answered.fileno()), "rb")

    def kill(self) -> None:
        """End the process."""
        self._process.kill()

    def communicate(self) -> None:
        """Wait for its end."""
        self.stdin.close()
        self.stdout.close()
        self._process.join()

    def wait(self) -> int | None:
        """Wait for its end; returns its exit status (negative: a signal)."""
        self._process.join()
        return self._process.exitcode


def _answer(questions: Connection, answers: Connection) -> None:
    os.dup2(questions.fileno(), 0)
    os.dup2(answers.fileno(), 1)
    sys.stdin = open(0)  # noqa: SIM115
    process.main()
