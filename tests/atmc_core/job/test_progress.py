"""Progress is emitted while images are read, but not too often."""

from pathlib import Path
from typing import Any

import pytest

from atmc_core.data import Reading, load_dataset
from atmc_core.job import progress
from atmc_core.job.progress import throttled_progress
from tests.atmc_core.data.test_image_files import _folders, _zip


def test_reading_images_is_counted_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[dict[str, Any]] = []
    monkeypatch.setattr(progress, "_PAUSE_S", 0)
    update = throttled_progress(events.append, "validating")
    load_dataset(_zip(tmp_path / "d", _folders()), 0.2, 0, Reading(told=update))
    assert [event["epoch"] for event in events] == list(range(1, 25))
    assert events[-1] == {
        "type": "progress",
        "stage": "validating",
        "epoch": 24,
        "epochs": 24,
        "progress": 0.0,
        "eta_s": None,
    }
    monkeypatch.setattr(progress, "_PAUSE_S", 3600)
    throttled_progress(events.append, "validating")(1, 1)
    assert len(events) == 24
