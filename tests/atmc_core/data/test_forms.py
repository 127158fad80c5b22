"""What comes in and how: each row of the table in docs/formats.md, read by the API and the job."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from tests.atmc_core.data.data_files import (
    IMAGES,
    LABELS,
    NAMES,
    SETS,
    arrays,
    cifar_10,
    cifar_100,
    cifar_images,
    encoded,
    folders,
    idx_files,
    npy,
    npz,
    rows,
    tarred,
    zipped,
)
from tests.atmc_core.data.reading import inspected, loaded

SPLIT = folders("train/") | folders("test/")
HUB = {"README.md": b"#", ".gitattributes": b"*", "dataset_infos.json": b"{}"}
LITTER = {
    "__MACOSX/ant/._0.png": b"litter",
    ".DS_Store": b"litter",
    "train/Thumbs.db": b"litter",
    "train/ant/desktop.ini": b"litter",
    "train/@eaDir/0.png": encoded(7),
    "train/ant/.ipynb_checkpoints/0-checkpoint.png": encoded(7),
    "train/.thumbnails/": b"",
    ".Trashes/501/0.png": encoded(7),
    "test/.gitkeep": b"",
    "$RECYCLE.BIN/x/0.png": encoded(7),
    "README.md": b"#",
    "LICENSE": b"MIT",
}


def backslashed(members: Mapping[str, bytes]) -> bytes:
    return zipped({name.replace("/", "*"): content for name, content in members.items()}).replace(
        b"*", b"\\"
    )


def safetensors_file() -> bytes:
    return safetensors.numpy.save(arrays())


# The rows of the table: the file, the names of its classes, and whether it has a test split.
FORMS: dict[str, tuple[Callable[[], bytes], tuple[str, ...], bool]] = {
    "train/CLASS/*.png, test/CLASS/*.png": (lambda: zipped(SPLIT), NAMES, True),
    "CLASS/*.png": (lambda: zipped(folders()), NAMES, False),
    "CLASS/*.jpg, with small pictures inside (MPO)": (
        lambda: zipped(folders() | {"cat/9.JPG": encoded(200, "MPO", previews=True)}),
        NAMES,
        False,
    ),
    "folders around everything": (
        lambda: zipped({f"a/b/{name}": content for name, content in SPLIT.items()}),
        NAMES,
        True,
    ),
    "training_set/, testing/": (
        lambda: zipped(folders("training_set/") | folders("testing/")),
        NAMES,
        True,
    ),
    "an empty class folder": (
        lambda: zipped(folders(classes=("bee", "cat", "dog")) | {"ant/": b""}),
        ("ant", "bee", "cat", "dog"),
        False,
    ),
    "a class folder that is empty but for .gitkeep": (
        lambda: tarred(folders(classes=("bee", "cat", "dog")) | {"ant/.gitkeep": b""}),
        ("ant", "bee", "cat", "dog"),
        False,
    ),
    "hidden files, litter, README": (lambda: zipped(SPLIT | LITTER), NAMES, True),
    "backslashes in names": (lambda: backslashed(SPLIT), NAMES, True),
    "names that differ by case": (
        lambda: zipped(folders() | {"ant/0.PNG": encoded(40)}),
        NAMES,
        False,
    ),
    "a class called train": (
        lambda: zipped(folders(classes=("bus", "car", "train"))),
        ("bus", "car", "train"),
        False,
    ),
    ".tar": (lambda: tarred({"./": b"", "./train/": b""} | SPLIT | LITTER), NAMES, True),
    ".tar.gz": (lambda: tarred(SPLIT, "gz"), NAMES, True),
    ".tar.bz2": (lambda: tarred(SPLIT, "bz2"), NAMES, True),
    ".tar.xz": (lambda: tarred(SPLIT, "xz"), NAMES, True),
    "idx": (lambda: zipped(idx_files()), (), True),
    "idx, beside a README": (lambda: tarred(idx_files() | {"README.txt": b""}, "gz"), (), True),
    "Parquet": (lambda: rows(NAMES), NAMES, False),
    "train-00000-of-00001.parquet": (
        lambda: zipped({f"{split}-00000-of-00001.parquet": SETS[split] for split in SETS}),
        NAMES,
        True,
    ),
    "train_0.parquet, beside a script": (
        lambda: zipped({"a/train_0.parquet": SETS["train"], "a/test.parquet": SETS["test"]} | HUB),
        NAMES,
        True,
    ),
    "data/train-00000-of-00001.parquet, as the Hub's repository": (
        lambda: zipped(
            HUB | {f"set/data/{split}-00000-of-00001.parquet": SETS[split] for split in SETS}
        ),
        NAMES,
        True,
    ),
    "CONFIG/train/0000.parquet, as the Hub converts": (
        lambda: tarred({f"plain_text/{split}/0000.parquet": SETS[split] for split in SETS}),
        NAMES,
        True,
    ),
    "cifar-10-python.tar.gz": (
        lambda: tarred(cifar_10(cifar_images(), LABELS, list(NAMES)), "gz"),
        NAMES,
        True,
    ),
    "cifar-100-python.tar.gz": (
        lambda: tarred(cifar_100(cifar_images(), LABELS, list(NAMES)), "gz"),
        NAMES,
        True,
    ),
    "CIFAR-10, unpacked and zipped": (
        lambda: zipped(cifar_10(cifar_images(), LABELS, list(NAMES))),
        NAMES,
        True,
    ),
    ".npz": (npz, (), True),
    "safetensors": (safetensors_file, (), True),
    ".npy files in a folder": (
        lambda: tarred({f"d/{name}.npy": npy(array) for name, array in arrays().items()}, "gz"),
        (),
        True,
    ),
    "labels [N, 1]": (lambda: npz(y_train=np.array(LABELS)[:, None]), (), True),
    "labels big-endian": (lambda: npz(y_train=np.array(LABELS, ">i4")), (), True),
    "arrays in Fortran's order": (
        lambda: npz(x_train=np.asfortranarray(IMAGES), y_test=np.array(LABELS, "u1")),
        (),
        True,
    ),
    "images [N, H, W]": (
        lambda: npz(x_train=IMAGES[..., 0].copy(), x_test=IMAGES[..., 0].copy()),
        (),
        True,
    ),
}


def test_the_table_in_the_docs_has_these_rows() -> None:
    page = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
    table = page.split("| what is sent | how it is taken |\n|---|---|\n")[1].split("\n\n")[0]
    told = [line.split(" | ")[0].removeprefix("| ").replace("`", "") for line in table.split("\n")]
    assert sorted(told) == sorted(FORMS)


@pytest.mark.parametrize("form", FORMS)
def test_comes_in_with_each_label_at_its_image(form: str, tmp_path: Path) -> None:
    make, names, has_test = FORMS[form]
    inspected(make())
    data = loaded(make(), tmp_path / "d")
    assert data.class_names == names
    values = {0: 40, 1: 120, 2: 200} if "empty" not in form else {1: 40, 2: 120, 3: 200}
    for split in (data.train, data.val, data.test):
        means = split.images.flatten(1).float().mean(1)
        assert len(split)
        assert [abs(m - values[int(y)]) < 3 for m, y in zip(means, split.labels, strict=True)] == [
            True
        ] * len(split)
    assert ("test_split_cut" in dict(data.notes)) != has_test
    # What was inflated is gone: the map of a data set's images has no name.
    assert [path.name for path in tmp_path.iterdir()] == ["d"]
