"""A supervisor whose child is a stand-in, beside what `tests.bench` has."""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jobstore import leases
from tests.bench import (  # noqa: F401
    Bench,
    _is_running,
    _poll,
    bench,
    broker,
    column,
    settings,
    start,
    start_worker,
    store,
)
from worker.supervisor import Supervisor, runs_folder

# For the child of the supervisor's tests, which does as its spec says.
SUCCEED = {"do": "succeed", "headline": {"pgd_accuracy_after": 1}}
STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in.py")))


@pytest.fixture
def shutdown() -> threading.Event:
    """Set when the supervisor's worker is to end."""
    return threading.Event()


@pytest.fixture
def supervisor(bench: Bench, shutdown: threading.Event) -> Iterator[Supervisor]:  # noqa: F811
    """A supervisor that starts the stand-in for a child, which enters no sandbox."""
    supervisor = Supervisor(
        bench.settings.model_copy(update={"sandbox": "off"}),
        bench.database,
        bench.store,
        device="cpu",
        shutdown=shutdown,
        child_command=STAND_IN,
    )
    yield supervisor
    supervisor.children.close()


@pytest.fixture
def run(bench: Bench, supervisor: Supervisor) -> Callable[[], None]:  # noqa: F811
    """Claims the next job and runs one attempt of it."""

    def run_next() -> None:
        with bench.database.write() as session:
            claimed = leases.claim(session, "worker", lease_s=bench.settings.lease_s)
        assert claimed is not None
        supervisor.run(*claimed)
        # What is left is the next child's.
        assert len([path for path in runs_folder(bench.settings).iterdir() if path.is_dir()]) <= 1

    return run_next


@contextmanager
def running(run: Callable[[], None]) -> Iterator[threading.Thread]:
    """Run in a thread, which has to end when all is done."""
    thread = threading.Thread(target=run)
    thread.start()
    yield thread
    thread.join(120)
    assert not thread.is_alive()
