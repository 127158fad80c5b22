"""Evaluates a decoded artifact in a process that has seen nothing but the artifact's file.

A fresh interpreter reads the artifact from disk, so nothing that the job's own process knows of the
network can leak into the figures. The job sends one portion at a time and keeps the state, so that
its checkpoints contain all that a resumed evaluation needs. The process ends when its standard
input closes.
"""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import IO, Any

import torch

from atmc_core import artifact
from atmc_core.data import Split
from atmc_core.determinism import compute_repeatably
from atmc_core.errors import InvalidInput
from atmc_core.evaluation.evaluator import Evaluator, State
from atmc_spec import Evaluation, Threat

# Each message is preceded by its length, an integer of this many bytes.
_LENGTH_BYTES = 8


class FreshEvaluator:
    """An ``Evaluator`` of an artifact that runs in a process of its own.

    The new process belongs to the session of this one, so whoever ends the session ends both.

    Args:
        path: the artifact's file.
        split: the images to evaluate; the process uses the device that the labels are on.
        threat: as in ``Evaluator``.
        evaluation: as in ``Evaluator``.
        seed: as in ``Evaluator``.

    Raises:
        RuntimeError: if the process ends without an answer, now or in ``run_portion``.
    """

    def __init__(
        self,
        path: Path,
        split: Split,
        threat: Threat,
        evaluation: Evaluation,
        seed: int,
    ) -> None:
        self._process = _start()
        cpu = split.to(torch.device("cpu"))
        document = {
            "artifact": str(path.resolve()),
            "images": cpu.images,
            "labels": cpu.labels,
            "threat": threat.to_json(),
            "evaluation": evaluation.to_json(),
            "seed": seed,
            "device": split.labels.device.type,
            "threads": torch.get_num_threads(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
        }
        self._state: State = self._ask(document)

    def run_portion(self, index: int) -> dict[str, float]:
        """Run portion ``index``; arguments, result and errors as in ``Evaluator.run_portion``."""
        answer = self._ask({"index": index, "state": self._state})
        self._state = answer["state"]
        figures: dict[str, float] = answer["figures"]
        return figures

    def state(self) -> State:
        """The results so far; see ``Evaluator``."""
        return self._state

    def restore(self, state: State) -> None:
        """Continue from the results ``state``."""
        self._state = state

    def close(self) -> None:
        """End the process. Nothing is lost, because the state is kept here."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        answer = None
        try:
            _send(self._process.stdin, message)
            answer = _receive(self._process.stdout)
        except BrokenPipeError:
            pass
        if answer is None:
            status = self._process.wait()
            raise RuntimeError(f"the process that evaluates the artifact ended with {status}")
        if "error" in answer:
            raise InvalidInput(**answer["error"])
        return answer


def _start() -> "subprocess.Popen[bytes]":
    # The new process must import the same package, however this process found it.
    root = str(Path(__file__).parents[2])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-m", "atmc_core.evaluation.process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )


def _send(stream: IO[bytes], message: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    torch.save(message, buffer)
    stream.write(len(buffer.getvalue()).to_bytes(_LENGTH_BYTES, "little") + buffer.getvalue())
    stream.flush()


def _receive(stream: IO[bytes]) -> dict[str, Any] | None:
    """The next message (tensors and plain values only), or None at the end of the stream."""
    length = stream.read(_LENGTH_BYTES)
    if len(length) < _LENGTH_BYTES:
        return None
    content = io.BytesIO(stream.read(int.from_bytes(length, "little")))
    message: dict[str, Any] = torch.load(content, weights_only=True)
    return message


def main() -> None:
    """Answer the requests on standard input on standard output, until the input closes."""
    # Prints of other code go to standard error, so that they cannot corrupt the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    questions = sys.stdin.buffer
    first = _receive(questions)
    if first is None:
        return
    evaluator = _evaluator(first)
    _send(answers, evaluator.state())
    while (question := _receive(questions)) is not None:
        evaluator.restore(question["state"])
        try:
            figures = evaluator.run_portion(question["index"])
        except InvalidInput as error:
            refusal = {"code": error.code, "message": error.message, "param": error.param}
            _send(answers, {"error": refusal})
        else:
            _send(answers, {"figures": figures, "state": evaluator.state()})


def _evaluator(document: dict[str, Any]) -> Evaluator:
    torch.set_num_threads(document["threads"])
    compute_repeatably(document["deterministic"])
    device = torch.device(document["device"])
    model = artifact.load(Path(document["artifact"]))
    return Evaluator(
        model.classifier().to(device),
        Split(document["images"], document["labels"]).to(device),
        Threat.read(document["threat"]),
        Evaluation.read(document["evaluation"]),
        model.num_classes,
        document["seed"],
    )


if __name__ == "__main__":
    main()
