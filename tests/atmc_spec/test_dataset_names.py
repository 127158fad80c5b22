"""What the names in an archive say: hidden ones, splits, configurations, and folders that exist."""

import pytest

from atmc_core.errors import InvalidInput
from atmc_spec.datasets.layout import class_folders, parquet_splits, split_of
from atmc_spec.datasets.members import clean_name, is_ignored, listing


@pytest.mark.parametrize(
    "name",
    [
        ".gitkeep",
        "cat/.gitkeep",
        ".git/objects/ab/1.png",
        "cat/._1.png",
        "__MACOSX/cat/1.png",
        "cat/THUMBS.DB",
        "cat/@eaDir/1.png/SYNOPHOTO_THUMB_M.jpg",
        "@eaDir/",
        "#recycle/1.png",
        "System Volume Information/x",
        "README",
        "cat/readme.TXT",
        "LICENSE.md",
        "dataset_infos.json",
        ".cache/huggingface/train.parquet",
    ],
)
def test_what_tools_leave_behind_is_ignored(name: str) -> None:
    assert is_ignored(name)


@pytest.mark.parametrize(
    "name",
    [
        "license.png",
        "cat/readme.jpg",
        "cat/1.png",
        "cat./1.png",
        "readme/1.png",
        "a.b/1.png",
        "@/1.png",
    ],
)
def test_images_are_not_ignored(name: str) -> None:
    assert not is_ignored(name)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("cat\\1.png", "cat/1.png"),
        ("./cat//1.png", "cat/1.png"),
        ("cat\\", "cat/"),
        ("./", ""),
        ("a:b/1.png", "a:b/1.png"),
        ("cat..dog/1.png", "cat..dog/1.png"),
    ],
)
def test_names_are_cleaned(raw: str, clean: str) -> None:
    assert clean_name(raw) == clean


@pytest.mark.parametrize(
    "raw",
    ["", "/cat/1.png", "\\\\host\\1.png", "../1.png", "cat\\..\\..\\1.png", "cat/..", "C:\\1.png",
     "c:/1.png", "cat/1\0.png"],
)  # fmt: skip
def test_names_that_lead_out_are_refused(raw: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        clean_name(raw)
    assert refused.value.code == "malformed_dataset"


def test_a_listing_has_folders_with_all_above_them_and_those_that_something_hidden_keeps() -> None:
    found = listing(
        ["set\\train\\cat\\", "set/train/dog/.gitkeep", "set/.git/hooks/", "set/.git/x", "a/1.png",
         ".DS_Store", "__MACOSX/set/._x", "README.md"]
    )  # fmt: skip
    assert found.files == {"a/1.png": 4}
    assert found.folders == ("set", "set/train", "set/train/cat", "set/train/dog")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        *[(name, "train") for name in ("train", "TRAIN", "Training_Set", "trainset", "train-data")],
        *[(name, "val") for name in ("val", "valid", "Validation", "dev_set", "val_images")],
        *[(name, "test") for name in ("test", "testing", "test set", "partial-test", "testset")],
        *[
            (name, None)
            for name in ("", "set", "cat", "trains", "contest", "test_tube", "0", "data")
        ],
    ],
)
def test_the_names_of_splits(name: str, split: str | None) -> None:
    assert split_of(name) == split


def test_each_parquet_file_has_its_split() -> None:
    expected = {
        "train-00000-of-00002-1a2b.parquet": "train",
        "data/validation-0.parquet": "val",
        "default/partial-train/0000.parquet": "train",
        "default/test/0001.parquet": "test",
        "food101_test.parquet": "test",
        "my-test-data/train/part-0.parquet": "train",
    }
    assert parquet_splits(expected) == expected


def test_a_class_may_have_any_name_where_others_stand_beside_it() -> None:
    files = ["v/train/1.png", "v/bus/1.png", "v/val/1.png"]
    assert class_folders(files, []).names == ("bus", "train", "val")
    files = ["train/train/1.png", "train/test/1.png", "test/test/1.png"]
    found = class_folders(files, ["train/bus", "train", "annotations"])
    assert found.names == ("bus", "test", "train")
    assert found.places["train/test/1.png"] == ("train", "test")
