"""Lets many requests and streams wait for jobs and sweeps at the cost of a query a tick."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from jobstore import jobs, sweeps
from jobstore.database import Database
from jobstore.jobs import Head

POLL_S = 0.2


@dataclass(frozen=True, eq=False)
class _Waiter:
    id: str
    is_news: Callable[[Head], bool]
    told: asyncio.Future[None]


class JobWatcher:
    """One poller a process. It runs while anybody waits, and asks for all waiters at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiters: set[_Waiter] = set()
        self._poller: asyncio.Task[None] | None = None
        self.released = False

    async def wait(self, id: str, is_news: Callable[[Head], bool], timeout_s: float) -> bool:
        """Return True once `is_news` of the head of the job or sweep, or once that is gone.

        False after `timeout_s`, or because the process is about to stop (`released`).
        """
        if self.released:
            return False
        waiter = _Waiter(id, is_news, asyncio.get_running_loop().create_future())
        self._waiters.add(waiter)
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll())
        try:
            async with asyncio.timeout(timeout_s):
                await waiter.told
        except TimeoutError:
            return False
        finally:
            self._waiters.discard(waiter)
        return not self.released

    def release(self) -> None:
        """End all waiting, now and later: the process is about to stop."""
        self.released = True
        for waiter in self._waiters:
            if not waiter.told.done():
                waiter.told.set_result(None)

    async def _poll(self) -> None:
        while self._waiters:
            waiters = list(self._waiters)
            try:
                heads = await run_in_threadpool(self._read, {w.id for w in waiters})
            except SQLAlchemyError as error:
                self._fail(error)
                return
            for waiter in waiters:
                head = heads.get(waiter.id)
                if (head is None or waiter.is_news(head)) and not waiter.told.done():
                    waiter.told.set_result(None)
            await asyncio.sleep(POLL_S)

    def _read(self, ids: Collection[str]) -> dict[str, Head]:
        of_sweeps = {id for id in ids if id.startswith(sweeps.ID_PREFIX)}
        of_jobs = set(ids) - of_sweeps
        with self._database.read() as session:
            found = jobs.heads_of(session, of_jobs) if of_jobs else {}
            return found | (sweeps.heads_of(session, of_sweeps) if of_sweeps else {})

    def _fail(self, error: Exception) -> None:
        for waiter in self._waiters:
            if not waiter.told.done():
                waiter.told.set_exception(error)
