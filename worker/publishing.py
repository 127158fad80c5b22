"""Stores what a child that has ended left: its results, signed, and its job's outcome."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobstore.leases import JobError, NewArtifact
from jobstore.tables import Dataset, Job, Model
from jobstore.traces import Attributes, Span
from worker.access import Access
from worker.events import ProtocolError
from worker.folder import REPORT, RunFolder, is_result, media_type
from worker.signing import Signer
from worker.spans import AttemptSpans


def read_outcome(folder: RunFolder) -> dict[str, Any] | JobError:
    """Return the headline of a child that succeeded, or why it failed.

    Raises `ProtocolError`.
    """
    outcome = json.loads(folder.outcome.read_text())
    match outcome:
        case {"status": "succeeded", "headline": dict(headline)}:
            return headline
        case {"status": "failed", "error": {"code": str(), "message": str()} as error}:
            return JobError(**error)
    raise ProtocolError(f"not an outcome: {outcome!r}")


class Publisher:
    """Stores the results of one attempt's child."""

    def __init__(
        self,
        access: Access,
        job: Job,
        folder: RunFolder,
        spans: AttemptSpans,
        signer: Signer | None,
    ) -> None:
        self._access, self._job, self._folder = access, job, folder
        self._spans, self._signer = spans, signer

    def publish(self, inputs: tuple[Model, Dataset]) -> list[NewArtifact]:
        """Store all results, with a signature where there is a signer.

        Raises `ProtocolError` for a folder that holds something else.
        """
        with self._spans.step("publish") as publishing:
            artifacts = [self._store(path, publishing) for path in self._results()]
            if self._signer is not None:
                artifacts.append(self._attest(self._signer, inputs, artifacts, publishing))
        return artifacts

    def _results(self) -> list[Path]:
        found = sorted(self._folder.results.iterdir())
        if REPORT not in (path.name for path in found):
            raise ProtocolError(f"a succeeded child left no results/{REPORT}")
        for path in found:
            if not is_result(path):
                raise ProtocolError(f"a child left results/{path.name!r}, which is not a result")
        return found

    def _store(self, path: Path, publishing: Span) -> NewArtifact:
        size = path.stat().st_size
        told: Attributes = {"atmc.artifact.name": path.name, "atmc.artifact.bytes": size}
        with self._spans.step(f"publish {path.name}", below=publishing, attributes=told):
            stored = self._access.put_blob(path)
        return NewArtifact(path.name, media_type(path.name), stored.sha256, stored.bytes)

    def _attest(
        self,
        signer: Signer,
        inputs: tuple[Model, Dataset],
        artifacts: Sequence[NewArtifact],
        publishing: Span,
    ) -> NewArtifact:
        """Sign the digests under which the results were stored, and store that, too."""
        digests = dict(zip(("model", "dataset"), (each.sha256 for each in inputs), strict=True))
        path = self._folder.attestation
        # A link that the child has put there would lead elsewhere.
        path.unlink(missing_ok=True)
        with path.open("xb") as file:
            file.write(signer.attest(self._job, digests, artifacts))
        return self._store(path, publishing)
