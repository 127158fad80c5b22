"""Lets many requests wait for a change of state at the cost of one query a tick."""

import asyncio
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from jobstore.database import Database
from jobstore.jobs import states_of
from jobstore.states import JobState

POLL_S = 0.2


@dataclass(frozen=True, eq=False)
class _Waiter:
    job_id: str
    known: JobState
    changed: asyncio.Future[None]


class StateWatcher:
    """One poller a process. It runs while anybody waits, and asks for all waiters at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiters: set[_Waiter] = set()
        self._poller: asyncio.Task[None] | None = None
        self._released = False

    async def wait(self, job_id: str, known: JobState, timeout_s: float) -> None:
        """Return once the job's state is another than `known`, at the latest after `timeout_s`."""
        if self._released:
            return
        waiter = _Waiter(job_id, known, asyncio.get_running_loop().create_future())
        self._waiters.add(waiter)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        try:
            async with asyncio.timeout(timeout_s):
                await waiter.changed
        except TimeoutError:
            return
        finally:
            self._waiters.discard(waiter)

    def release(self) -> None:
        """End all waiting, now and later: the process is about to stop."""
        self._released = True
        for waiter in self._waiters:
            if not waiter.changed.done():
                waiter.changed.set_result(None)

    async def _poll(self) -> None:
        while self._waiters:
            waiters = list(self._waiters)
            try:
                states = await run_in_threadpool(self._read, {w.job_id for w in waiters})
            except SQLAlchemyError as error:
                self._fail(error)
                return
            for waiter in waiters:
                if states.get(waiter.job_id) != waiter.known and not waiter.changed.done():
                    waiter.changed.set_result(None)
            await asyncio.sleep(POLL_S)

    def _read(self, job_ids: Collection[str]) -> dict[str, JobState]:
        with self._database.read() as session:
            return states_of(session, job_ids)

    def _fail(self, error: Exception) -> None:
        for waiter in self._waiters:
            if not waiter.changed.done():
                waiter.changed.set_exception(error)
