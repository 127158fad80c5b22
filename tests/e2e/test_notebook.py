"""The notebooks run from their first cell to the last, and open as such."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_notebook_ends_with_a_small_robust_network_and_a_picture(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.notebook"],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    (folder,) = tmp_path.glob("atmc-notebook-*")
    assert (folder / "robustness.png").read_bytes().startswith(b"\x89PNG")
    size = (folder / "small.atmc").stat().st_size
    assert f"a file of {size:,} bytes" in done.stdout
    assert size < 0.15 * 37_192
    found = re.search(r"epsilon 0\.1: (\S+) before, (\S+) after", done.stdout)
    assert found is not None
    before, after = (float(figure) for figure in found.groups())
    assert after > 0.5
    assert after > before - 0.15


@pytest.mark.parametrize("name", ["notebook", "torchvision_to_onnx"])
def test_they_are_cells_of_the_percent_format(name: str) -> None:
    text = (ROOT / f"examples/{name}.py").read_text()
    assert text.startswith("# %% [markdown]\n")
    assert len(re.findall(r"^# %%$", text, re.M)) >= 6


@pytest.mark.slow
def test_a_network_of_torchvision_becomes_an_onnx_file_that_runs(
    service_url: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.torchvision_to_onnx"],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path), "ATMC_SERVER": service_url},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = re.search(r"by onnxruntime (\S+), by the service's report (\S+)", done.stdout)
    assert found is not None
    assert found[1] == found[2]
    assert float(found[1]) > 0.3
    (folder,) = tmp_path.glob("atmc-torchvision-*")
    before, after = folder / "shufflenet.safetensors", folder / "small" / "model.atmc"
    assert after.stat().st_size < 0.2 * before.stat().st_size
    picture = re.search(r"shows (\d), the network says (\d)", done.stdout)
    assert picture is not None
