from pathlib import Path

import pytest
from pydantic import ValidationError

from jobstore.settings import Settings


def test_everything_lies_in_the_data_folder_by_default(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert settings.database_url == f"sqlite:///{tmp_path}/atmc.db"
    assert settings.store_url == f"file://{tmp_path}/objects"


def test_the_environment_sets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ATMC_HOME", "elsewhere")
    monkeypatch.setenv("ATMC_STORE_URL", "s3://bucket/prefix")
    monkeypatch.setenv("ATMC_STORE_SECRET_ACCESS_KEY", "hush")
    settings = Settings()
    assert settings.home == tmp_path / "elsewhere"
    assert settings.store_url == "s3://bucket/prefix"
    assert "hush" not in repr(settings)


def test_a_lease_shorter_than_two_heartbeats_is_refused() -> None:
    with pytest.raises(ValidationError, match="one late heartbeat loses the job"):
        Settings(lease_s=5, heartbeat_s=3)
