"""What a job asks of a worker, and what it waits for."""

import json
from collections.abc import Collection, Iterable
from typing import Literal, Self

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy.orm import Session

from jobstore.settings import Settings
from jobstore.states import JobState
from jobstore.tables import Job
from jobstore.workers import GPU, Offer, known_offers, queue_of

MAX_GPUS = 64


class Resources(BaseModel):
    """The devices that the job is to run on."""

    model_config = ConfigDict(extra="forbid")

    device: Literal["cpu", "gpu"]
    gpus: int | None = Field(
        None, ge=1, le=MAX_GPUS, description="GPUs that train together; 1 by default with `gpu`."
    )

    @model_validator(mode="after")
    def _gpus_of_a_gpu(self) -> Self:
        if self.device == GPU:
            self.gpus = self.gpus or 1
        elif self.gpus is not None:
            raise ValueError("a job on the cpu takes no gpus")
        return self

    @classmethod
    def of(cls, job: Job) -> Self | None:
        """Show what the job's row asks for; None for any worker."""
        if job.device is None:
            return None
        return cls.model_validate({"device": job.device, "gpus": job.gpus or None})


class Waiting(BaseModel):
    """Why a queued job does not run yet."""

    code: Literal["fetching_inputs", "workers_busy", "no_such_worker"]
    message: str

    @classmethod
    def of(cls, job: Job, offers: Collection[Offer]) -> Self | None:
        """Judge by what the known workers have; None for a job that does not wait."""
        if job.state is not JobState.QUEUED:
            return None
        if job.awaits_inputs:
            message = "Its model or data set is still being fetched; their `source` says how far."
            return cls(code="fetching_inputs", message=message)
        if any(offer.suits(job) for offer in offers):
            return cls(code="workers_busy", message="The next worker that is free takes it.")
        wanted = {None: "", "cpu": "cpu "}.get(job.device, f"{job.gpus}-gpu ")
        message = f"No {wanted}worker is known; the job waits until one starts."
        return cls(code="no_such_worker", message=message)


def offers_for(session: Session, settings: Settings, jobs: Iterable[Job]) -> set[Offer]:
    """Return what the known workers have, if any of the jobs waits for one."""
    if not any(job.state is JobState.QUEUED for job in jobs):
        return set()
    # A worker that is silent for longer has lost its jobs, too.
    return known_offers(session, seen_within_s=settings.lease_s)


def queue_for(shown: JSONResponse) -> str:
    """Return the queue of the wake-up for the job that an answer shows."""
    resources = json.loads(bytes(shown.body)).get("resources") or {}
    return queue_of(resources.get("device"), resources.get("gpus") or 0)
