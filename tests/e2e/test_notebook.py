"""The notebook runs from its first cell to its last, and opens as one."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


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


def test_it_is_cells_of_the_percent_format() -> None:
    text = (ROOT / "examples/notebook.py").read_text()
    assert text.startswith("# %% [markdown]\n")
    assert len(re.findall(r"^# %%$", text, re.M)) >= 6
