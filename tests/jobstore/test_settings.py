from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from sqlalchemy import make_url

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


def test_passwords_come_from_files_and_go_into_the_urls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "atmc_database_password").write_text("a/b@c\n")
    (tmp_path / "atmc_broker_password").write_text("hush")
    (tmp_path / "atmc_store_secret_access_key").write_text("quiet\n")
    monkeypatch.setenv("ATMC_SECRETS_DIR", str(tmp_path))
    settings = Settings(
        database_url="postgresql://atmc@db:5432/atmc", broker_url="redis://br:6379/0"
    )
    url = make_url(settings.database_url)
    assert (url.username, url.password, url.host, url.database) == ("atmc", "a/b@c", "db", "atmc")
    assert settings.broker_url == "redis://:hush@br:6379/0"
    assert settings.store_secret_access_key is not None
    assert settings.store_secret_access_key.get_secret_value() == "quiet"


@pytest.mark.parametrize("url", ["postgresql://atmc:one@db/atmc", "sqlite:////tmp/atmc.db"])
def test_a_password_that_its_url_has_no_place_for_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="a password beside a URL"):
        Settings(database_url=url, database_password=SecretStr("two"))
