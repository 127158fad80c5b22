"""A tenant's limits and retention: its own where it has them, else the service's."""

from dataclasses import dataclass, fields

from jobstore.settings import Settings
from jobstore.tables import Tenant


@dataclass(frozen=True)
class Terms:
    """Limits in bytes, jobs and requests, retention in seconds; None: without limit, for ever."""

    max_stored_bytes: int | None
    max_queued_jobs: int | None
    max_running_jobs: int | None
    requests_per_minute: int | None
    keep_uploads_s: float | None
    keep_checkpoints_s: float | None
    keep_artifacts_s: float | None
    keep_events_s: float | None

    @classmethod
    def of(cls, settings: Settings, tenant: Tenant) -> "Terms":
        """Return the terms that hold for the tenant."""

        def term(name: str) -> float | None:
            own: float | None = getattr(tenant, name)
            default: float | None = getattr(settings, name)
            return default if own is None else own

        return cls(**{field.name: term(field.name) for field in fields(cls)})  # type: ignore[arg-type]


TERM_NAMES: tuple[str, ...] = tuple(field.name for field in fields(Terms))
