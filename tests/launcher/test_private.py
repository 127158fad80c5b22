"""What a part holds and writes is closed to others, and each has the secrets that it needs."""

import os
import subprocess
import sys

import pytest

from jobstore.settings import Settings
from launcher.service import _environment, _settings

# Root can look into everything. Without its powers it is a user like others.
POWERLESS = ("setpriv", "--bounding-set=-all", "--") if os.getuid() == 0 else ()
HOLD = "import sys; open(sys.argv[1], 'w').close(); print(flush=True); sys.stdin.read()"
KEPT = "from jobstore.private import keep_private; keep_private(); "


def is_closed(pid: int) -> bool:
    """Whether another process of the same user cannot look into one that has no powers either."""
    looking = [*POWERLESS, "cat", f"/proc/{pid}/environ"]
    seen = subprocess.run(looking, capture_output=True, check=False)
    assert seen.returncode == 0 or b"Permission denied" in seen.stderr, seen.stderr
    return seen.returncode != 0


@pytest.mark.parametrize("kept", [False, True])
def test_who_keeps_to_itself_is_closed_to_its_user_s_other_processes(tmp_path, kept):
    made = tmp_path / "made"
    command = [*POWERLESS, sys.executable, "-c", (KEPT if kept else "") + HOLD, str(made)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"\n"
        assert is_closed(process.pid) == kept
        assert (made.stat().st_mode & 0o077 == 0) == kept
        process.stdin.close()


def test_each_part_gets_the_settings_that_it_needs(tmp_path, monkeypatch):
    secrets = {
        "atmc_admin_key": "the-secret-of-an-operator",
        "atmc_secrets_key": "the-key-of-what-is-sealed",
        "atmc_database_password": "of-the-database",
        "atmc_store_secret_access_key": "of-the-store",
    }
    for name, value in secrets.items():
        (tmp_path / name).write_text(value)
    monkeypatch.setenv("ATMC_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("ATMC_DATABASE_URL", "postgresql://atmc@db/atmc")
    monkeypatch.setenv("ATMC_LEASE_S", "20")
    monkeypatch.setenv("ATMC_SIGNING_KEY_FILE", "/run/secrets/signing")
    parts = _settings(Settings(home=tmp_path, host="0.0.0.0", port=8001))
    common, sealing, asking, signing = parts
    assert signing == {"ATMC_SIGNING_KEY_FILE": "/run/secrets/signing"}
    assert "ATMC_SIGNING_KEY_FILE" not in common
    assert not [name for name in _environment() if name.startswith("ATMC_")]
    assert (
        common.items()
        >= {
            "ATMC_DATABASE_URL": "postgresql://atmc:of-the-database@db/atmc",
            "ATMC_STORE_SECRET_ACCESS_KEY": "of-the-store",
            "ATMC_LEASE_S": "20",
        }.items()
    )
    assert sealing == {"ATMC_SECRETS_KEY": secrets["atmc_secrets_key"]}
    assert asking == {
        "ATMC_ADMIN_KEY": secrets["atmc_admin_key"],
        "ATMC_HOST": "0.0.0.0",
        "ATMC_PORT": "8001",
    }
    monkeypatch.delenv("ATMC_SECRETS_DIR")
    for part in ({**common}, {**common, **sealing}, {**common, **sealing, **asking}):
        with monkeypatch.context() as patch:
            for name, value in part.items():
                patch.setenv(name, value)
            settings = Settings()
        assert settings.database_url.endswith("of-the-database@db/atmc")
        assert (settings.admin_key is not None) == ("ATMC_ADMIN_KEY" in part)
