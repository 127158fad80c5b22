"""The networks kept with the results: older files are read, and are what the table says."""

import json

import pytest

from atmc_core import artifact
from benchmarks.accuracy import first_images, papers_attacks, standing_after
from benchmarks.datasets import data_folder, unpacked
from benchmarks.paper import SETTINGS
from benchmarks.proof import NETWORKS, networks
from benchmarks.table import RESULTS

ROWS = {
    f"mnist-{row['name'].removeprefix('atmc-').removesuffix('-4')}": row
    for row in json.loads((RESULTS / "mnist-from-60k-long.json").read_text())["rows"]
}


@pytest.mark.parametrize("name", ROWS)
def test_a_file_holds_what_its_row_says(name: str) -> None:
    path, row = NETWORKS / f"{name}.atmc", ROWS[name]
    model = artifact.load(path)
    assert path.stat().st_size == row["file_bytes"]
    factors = ("nonzeros_u", "nonzeros_v", "nonzeros_c")
    assert model.nonzeros() == tuple(row[factor] for factor in factors)
    assert max(max(counts) for counts in model.distinct_values().values()) == 2**4
    assert model.nominal_ratio() == pytest.approx(row["nominal_ratio"], rel=1e-9)


def test_the_dense_network_is_the_one_that_they_started_from() -> None:
    sizes = {path.stem: sizes for path, _, sizes in networks()}
    assert set(sizes) == {"mnist-dense", *ROWS}
    assert sizes["mnist-dense"]["nonzeros"] == 430_500


@pytest.mark.skipif(data_folder() is None, reason="real MNIST is not on this machine")
def test_they_withstand_the_papers_attack() -> None:
    """On 250 images, so roughly; ``benchmarks.proof`` takes all."""
    images, setting = first_images(unpacked("mnist"), 250), SETTINGS["mnist"]
    attacks = papers_attacks(setting.epsilon, setting.steps)[:2]
    for path, classifier, _ in networks():
        clean, paper = standing_after(classifier, images, attacks, path=(0,), at_once=250)
        assert clean > 0.93, path
        assert paper > 0.72, path
