"""One launcher a folder, and a service file that is true as long as it is there."""

import json
import os

import pytest

from launcher.folder import DataFolder, FolderInUse


def test_the_folder_is_made_and_has_one_owner(tmp_path):
    folder = DataFolder(tmp_path / "new")
    with folder.owned():
        assert folder.logs.is_dir()
        with (
            pytest.raises(FolderInUse, match="choose another folder with --data-dir"),
            DataFolder(tmp_path / "new").owned(),
        ):
            pass
    with DataFolder(tmp_path / "new").owned():
        pass


def test_the_service_file_goes_with_the_service(tmp_path):
    folder = DataFolder(tmp_path)
    file = tmp_path / "service.json"
    file.write_text('{"url": "left by a killed launcher", "pid": 1}')
    with folder.owned():
        assert not file.exists()
        folder.announce("http://127.0.0.1:1")
        assert json.loads(file.read_text()) == {"url": "http://127.0.0.1:1", "pid": os.getpid()}
    assert not file.exists()


def test_a_folder_that_others_could_look_into_is_closed_and_a_foreign_one_left(tmp_path):
    old, foreign = tmp_path / "old", tmp_path / "foreign"
    for folder in (old, foreign):
        folder.mkdir(mode=0o755)
    (old / "launcher.lock").touch()
    for folder, mode in ((old, 0o700), (foreign, 0o755)):
        with DataFolder(folder).owned():
            assert folder.stat().st_mode & 0o777 == mode
            assert (folder / "logs").stat().st_mode & 0o077 == 0
