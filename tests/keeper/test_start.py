"""How the keeper begins."""

import os
import subprocess
import sys


def test_settings_that_cannot_be_are_said_without_a_traceback(tmp_path):
    environment = os.environ | {"ATMC_HOME": str(tmp_path), "ATMC_SECRETS_KEY": "short-secret"}
    done = subprocess.run(
        [sys.executable, "-m", "keeper"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "secrets_key" in done.stderr
    assert "Traceback" not in done.stderr
    assert "short-secret" not in done.stderr
