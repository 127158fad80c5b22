"""The commands of the pages that people begin with are run as they stand there."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from examples.digits import save_digits
from tests.docs.blocks import block, fenced, run


@pytest.fixture(scope="module")
def five_minutes(service_url: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a reader of quickstart.md, and what was printed there."""
    folder = tmp_path_factory.mktemp("reader")
    script = "".join(fenced("docs/quickstart.md").values())
    return folder, run(script, folder, ATMC_SERVER=service_url)


def test_the_five_minutes_are_true(five_minutes: tuple[Path, str]) -> None:
    folder, said = five_minutes
    assert "(quickstart): succeeded" in said
    assert (folder / "smaller" / "model.atmc").stat().st_size < 15_000


def test_what_was_fetched_is_verified(five_minutes: tuple[Path, str], signing_key: Path) -> None:
    smaller = five_minutes[0] / "smaller"
    shutil.copy(signing_key.with_suffix(".pub"), smaller / "service.pub")
    said = run(block("docs/formats.md", "atmc verify model.atmc"), smaller)
    assert "job_" in said


def test_the_c_file_is_compiled_and_classifies(
    five_minutes: tuple[Path, str], tmp_path: Path
) -> None:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler on this machine")
    smaller = five_minutes[0] / "smaller"
    save_digits(tmp_path / "digits.npz")
    with np.load(tmp_path / "digits.npz") as digits:
        images, labels = digits["x_test"][:20], digits["y_test"][:20]
    script = block("docs/formats.md", "cc -O3").splitlines()
    run(script[0], smaller)
    right = 0
    for image, label in zip(images, labels, strict=True):
        header = b"P5\n%d %d\n255\n" % (image.shape[1], image.shape[0])
        (smaller / "image.pgm").write_bytes(header + image.tobytes())
        logits = [float(line) for line in run(script[1], smaller).split()]
        assert len(logits) == 10
        right += int(np.argmax(logits)) == label
    assert right > 15


@pytest.mark.slow
def test_what_one_chooses_by_is_true(service_url: str, tmp_path: Path) -> None:
    script = "".join(fenced("docs/choosing.md").values())
    run(f"python -m examples.digits\n{script}", tmp_path, ATMC_SERVER=service_url)
    assert (tmp_path / "chosen.json").exists()
