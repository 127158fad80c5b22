"""The networks kept with the results: their files are read, and are what the rows say."""

from pathlib import Path

import pytest
import torch

from atmc_core import artifact, certify
from atmc_core.attacks import ball
from atmc_core.evaluation.attacks import smooth_pgd
from benchmarks.accuracy import first_images, standing_after
from benchmarks.datasets import data_folder, unpacked
from benchmarks.proof import PROVEN, TRUTH, kept, kind_of, read, recorded

ROWS = {**recorded(TRUTH), **recorded(PROVEN)}
FILES = list(kept().values())
ATTACKED = [path for path in FILES if not kind_of(path).provable]


def _stem(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", FILES, ids=_stem)
def test_a_file_holds_what_its_row_says(path: Path) -> None:
    row, (_, sizes) = ROWS[path.stem], read(path)
    assert sizes == pytest.approx({name: row[name] for name in sizes}, rel=1e-9)
    if path.suffix == ".atmc":
        counts = artifact.load(path).distinct_values().values()
        assert max(map(max, counts)) <= 2 ** row["bits"]


def test_each_row_is_of_a_file_and_no_attack_takes_back_its_worst_case() -> None:
    assert ROWS.keys() == kept().keys()
    for row in recorded(TRUTH).values():
        attacked = [row[f"{name}_accuracy"] for name in ("pgd", "smooth", "autoattack")]
        assert row["worst_accuracy"] <= min(attacked)
        assert max(attacked) <= row["clean_accuracy"]


def test_what_is_proven_is_at_most_what_stands_under_attack() -> None:
    for row in recorded(PROVEN).values():
        assert row["proven_accuracy"] <= row["attacked_accuracy"] <= row["clean_accuracy"]
        assert row["proven_and_broken"] == 0


@pytest.mark.skipif(data_folder() is None, reason="name the data sets' folder in ATMC_DATA_DIR")
@pytest.mark.parametrize("path", [path for path in FILES if kind_of(path).provable], ids=_stem)
def test_as_much_is_proven_of_the_first_images_as_of_all(path: Path) -> None:
    """Of 500 images, so roughly; ``benchmarks.proof`` does all."""
    images, labels = first_images(unpacked("mnist"), 500).batch(torch.arange(500))
    found = certify(read(path)[0], images, labels, kind_of(path).epsilon, method="ibp")
    assert float(found.proven.float().mean()) == pytest.approx(
        ROWS[path.stem]["proven_accuracy"], abs=0.06
    )


@pytest.mark.skipif(data_folder() is None, reason="name the data sets' folder in ATMC_DATA_DIR")
@pytest.mark.parametrize("path", ATTACKED, ids=_stem)
def test_they_withstand_a_smooth_attack_about_as_well_as_their_rows_say(path: Path) -> None:
    """On 250 images and in two short runs, so roughly; ``benchmarks.proof`` does all."""
    kind = kind_of(path)
    attacks = (None, smooth_pgd(ball("linf", kind.epsilon), 10, 2))
    images = first_images(unpacked(kind.dataset), 250)
    found = standing_after(read(path)[0], images, attacks, path=(0,), at_once=250)
    row = ROWS[path.stem]
    assert found == pytest.approx([row["clean_accuracy"], row["smooth_accuracy"]], abs=0.12)
