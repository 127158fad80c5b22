"""What can go wrong in the store, raised where the fact is known."""


class JobstoreError(Exception):
    """The root of every error of this package."""


class NotFound(JobstoreError):
    """No such row. `kind` is a noun ("job", "model", ...), `id` what was asked for."""

    def __init__(self, kind: str, id: str) -> None:
        super().__init__(f"no {kind} {id!r}")
        self.kind = kind
        self.id = id


class TenantGone(JobstoreError):
    """The tenant is being erased, or is gone: nothing of it may be written any more."""


class LeaseLost(JobstoreError):
    """The attempt no longer holds its job: stop, write nothing more, another one may be at work."""


class IllegalTransition(JobstoreError):
    """The state machine of `jobstore.states` has no such arrow."""


class NotEnded(JobstoreError):
    """The job is still queued or at work, or the sweep runs: `path` is its place."""

    def __init__(self, what: str, path: str) -> None:
        super().__init__(what)
        self.path = path


class InUse(JobstoreError):
    """A job or sweep refers to it. `kind` is a noun ("model", "dataset"), `id` which one."""

    def __init__(self, kind: str, id: str) -> None:
        super().__init__(f"the {kind} {id!r} is in use")
        self.kind = kind
        self.id = id


class Expired(JobstoreError):
    """The bytes of an upload are gone. `kind` is a noun ("model", "dataset"), `id` which one."""

    def __init__(self, kind: str, id: str) -> None:
        super().__init__(f"the {kind} {id!r} has expired")
        self.kind = kind
        self.id = id


class NotFetched(JobstoreError):
    """A file could not be fetched. `kind` is a noun ("model", "dataset"), `id` which one."""

    def __init__(self, kind: str, id: str) -> None:
        super().__init__(f"the {kind} {id!r} could not be fetched")
        self.kind = kind
        self.id = id


class UnsuitableStart(JobstoreError):
    """A job cannot start from the one that was named; the message says why."""


class InvalidCursor(JobstoreError):
    """The page cursor was not made by this service."""


class IdempotencyConflict(JobstoreError):
    """The idempotency key was used before, for another request."""


class StillAtWork(JobstoreError):
    """Another request with the same idempotency key was first and is not answered yet."""


class QuotaExceeded(JobstoreError):
    """The tenant has all it may of `kind`: "queued-jobs", "running-sweeps", "stored-bytes"."""

    def __init__(self, kind: str, limit: int, remaining: int) -> None:
        super().__init__(f"{kind} are limited to {limit}")
        self.kind = kind
        self.limit = limit
        self.remaining = remaining


class TooLarge(JobstoreError):
    """A stream went past `max_bytes`; nothing of it was kept."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"more than {max_bytes} bytes")
        self.max_bytes = max_bytes


class OffsetConflict(JobstoreError):
    """A chunk does not begin where the upload stands, at `received` bytes."""

    def __init__(self, upload_id: str, received: int) -> None:
        super().__init__(f"{upload_id} has {received} bytes")
        self.received = received


class TooManyWebhooks(JobstoreError):
    """The tenant has as many webhooks as it may."""


class WebhookDisabled(JobstoreError):
    """The webhook is switched off: nothing is sent."""


class DiskFull(Exception):
    """A disk of the service's has less free than is to be kept so."""

    def __init__(self, free: int, reserved: int) -> None:
        super().__init__(f"{free:,} bytes are free, {reserved:,} of them are kept so")
