"""The networks kept with the results: older files are read, and are what the table says."""

import json
from pathlib import Path

import pytest

from atmc_core import artifact
from benchmarks.accuracy import first_images, papers_attacks, standing_after
from benchmarks.datasets import data_folder, unpacked
from benchmarks.paper import SETTINGS
from benchmarks.proof import NETWORKS, read
from benchmarks.table import RESULTS

#: By the file's name: the tables of both seeds, all of ATMC at 4 bits.
ROWS = {
    f"mnist-{row['name'].removeprefix('atmc-').removesuffix('-4')}{seed}": row
    for seed in ("", "-seed1")
    for row in json.loads((RESULTS / f"mnist-from-60k-long{seed}.json").read_text())["rows"]
}
FILES = sorted(NETWORKS.iterdir())


@pytest.mark.parametrize("name", ROWS)
def test_a_file_holds_what_its_row_says(name: str) -> None:
    path, row = NETWORKS / f"{name}.atmc", ROWS[name]
    model = artifact.load(path)
    assert path.stat().st_size == row["file_bytes"]
    factors = ("nonzeros_u", "nonzeros_v", "nonzeros_c")
    assert model.nonzeros() == tuple(row[factor] for factor in factors)
    assert max(max(counts) for counts in model.distinct_values().values()) == 2**4
    assert model.nominal_ratio() == pytest.approx(row["nominal_ratio"], rel=1e-9)


def test_they_are_those_of_the_tables_and_the_dense_one() -> None:
    assert {path.stem for path in FILES} == {"mnist-dense", *ROWS}
    assert read(NETWORKS / "mnist-dense.safetensors")[1]["nonzeros"] == 430_500


@pytest.mark.skipif(data_folder() is None, reason="name MNIST's folder in ATMC_DATA_DIR")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_they_withstand_the_papers_attack(path: Path) -> None:
    """On 250 images, so roughly; ``benchmarks.proof`` takes all."""
    images, setting = first_images(unpacked("mnist"), 250), SETTINGS["mnist"]
    attacks = papers_attacks(setting.epsilon, setting.steps)[:2]
    clean, paper = standing_after(read(path)[0], images, attacks, path=(0,), at_once=250)
    assert clean > 0.9
    assert paper > 0.65
