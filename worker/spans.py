"""The spans of an attempt: claiming it, fetching, the child's stages, publishing.

The child has no network, so its stages are told here, by its events and with their times. The span
of the attempt itself is told by whoever ends the attempt: by the keeper if the worker cannot.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from jobstore import traces
from jobstore.events import EventType, NewEvent
from jobstore.leases import Attempt
from jobstore.tables import Job


class AttemptSpans:
    """What is told of one attempt; nothing if the job has no trace, or traces are off."""

    def __init__(self, job: Job, attempt: Attempt, claiming_since: datetime | None) -> None:
        """`claiming_since` is when the worker began to ask for a job, by default just now."""
        claimed = datetime.now(UTC)
        queued = job.queued_at or job.created_at
        began = max(claiming_since or claimed, queued)
        self._attempt = traces.begin_attempt(
            job.id,
            attempt.number,
            parent=job.trace,
            at=began,
            attributes={"atmc.job.method": str(job.spec.get("method", ""))},
        )
        self._stage: tuple[str, traces.Span] | None = None
        if self._attempt is traces.NOTHING:
            return
        traces.record("queued", queued, began, parent=job.trace)
        traces.record("claim", began, claimed, parent=self._attempt)

    def step(
        self,
        name: str,
        *,
        below: traces.Span | None = None,
        attributes: traces.Attributes | None = None,
    ) -> traces.Span:
        """Begin something that the worker itself does for the attempt; it is a context manager."""
        return traces.begin(name, parent=below or self._attempt, attributes=attributes)

    def follow(self, events: Sequence[NewEvent]) -> None:
        """Tell of the stages that these events begin and end."""
        for event in events:
            at, data = event.time or datetime.now(UTC), event.data
            if event.type is EventType.STAGE:
                self._enter_or_leave(str(data["stage"]), data.get("status"), at)
            elif self._stage is None:
                continue
            elif event.type is EventType.PROGRESS:
                self._stage[1].annotate({"atmc.stage.epochs": data["epoch"]})
            elif event.type is EventType.WARNING:
                # Its message may quote what is in the files.
                self._stage[1].note("warning", {"atmc.warning.code": str(data["code"])}, at)
            elif event.type is EventType.RESUMED:
                self._stage[1].note("resumed", {"atmc.stage.epochs": data["epoch"]}, at)

    def _enter_or_leave(self, stage: str, status: object, at: datetime) -> None:
        if status == "waiting":
            return  # It is at the stage all the same.
        if status == "started":
            self._leave(at)
            span = traces.begin(
                stage, parent=self._attempt, at=at, attributes={"atmc.job.stage": stage}
            )
            self._stage = stage, span
        elif self._stage is not None and self._stage[0] == stage:
            self._leave(at)

    def child_ended(self, error: str | None = None) -> None:
        """End the stage at which the child was; `error` is the code of why it ended there."""
        if self._stage is not None and error is not None:
            self._stage[1].fail(error)
        self._leave(datetime.now(UTC))

    def _leave(self, at: datetime) -> None:
        if self._stage is not None:
            self._stage[1].end(at)
            self._stage = None

    def end(self, outcome: str, error: str | None = None) -> None:
        """End the attempt: `outcome` is the job's state from here on, `error` a code."""
        self.child_ended(error)
        self._attempt.annotate({"atmc.job.outcome": outcome})
        if error is not None:
            self._attempt.fail(error)
        self._attempt.end()
