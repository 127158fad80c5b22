"""`python -m examples.demo`: what its last line holds, and that it can be stopped at any time."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from atmc_core.networks.architectures import build
from examples.digits import ARCHITECTURE

ROOT = Path(__file__).parents[2]
FIELDS = {
    "clean_accuracy_before",
    "clean_accuracy_after",
    "fgsm_accuracy_before",
    "fgsm_accuracy_after",
    "pgd_accuracy_before",
    "pgd_accuracy_after",
    "nonzeros",
    "k",
    "max_distinct_values",
    "bits",
    "file_bytes",
    "file_ratio",
    "nominal_ratio",
    "seconds",
}


def of_the_service(folder):
    """Living processes of the service that the demo keeps in `folder`."""
    group = int((folder / "service" / "parts.lock").read_text())
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            ours = os.getpgid(process.pid) == group or str(folder) in " ".join(process.cmdline())
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_process_behind(tmp_path, number):
    command = [sys.executable, "-m", "examples.demo", "--keep", tmp_path]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as demo:
        for line in demo.stdout:
            if ": evaluating_upload" in line:
                break
        assert len(of_the_service(tmp_path)) > 4
        demo.send_signal(number)
        rest = demo.stdout.read()
        assert demo.wait(timeout=45) == 130, rest
    assert rest.endswith("interrupted\n")
    assert of_the_service(tmp_path) == []


@pytest.mark.slow
def test_the_demo_s_last_line_holds_the_figures(tmp_path):
    began = time.monotonic()
    command = [sys.executable, "-m", "examples.demo"]
    demo = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    figures = json.loads(demo.stdout.splitlines()[-1])
    assert set(figures) == FIELDS
    weights = sum(each.numel() for each in build(ARCHITECTURE, 10).parameters() if each.ndim > 1)
    assert figures["k"] == round(0.1 * weights)
    assert figures["nonzeros"] <= figures["k"]
    assert figures["max_distinct_values"] <= 2 ** figures["bits"] == 16
    assert figures["clean_accuracy_before"] > 0.96
    assert figures["clean_accuracy_after"] > 0.96
    assert figures["pgd_accuracy_after"] > figures["pgd_accuracy_before"] + 0.1
    assert figures["nominal_ratio"] < figures["file_ratio"] < 0.05
    assert figures["seconds"] < time.monotonic() - began
