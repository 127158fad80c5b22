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
