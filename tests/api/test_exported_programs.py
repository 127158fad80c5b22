"""A `.pt2` file is refused, since torch's own loader runs what stands in it."""

import contextlib
import re
import zipfile
from pathlib import Path

import pytest
import torch

from api.inspection import read_model_header
from api.problems import Problem


class _Twice(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def test_torchs_loader_runs_code_from_the_file_so_we_refuse_it(tmp_path: Path) -> None:
    batch = torch.export.Dim("batch", min=2, max=100)
    program = torch.export.export(_Twice(), (torch.rand(4, 3),), dynamic_shapes=({0: batch},))
    good, evil, mark = tmp_path / "good.pt2", tmp_path / "evil.pt2", tmp_path / "ran"
    torch.export.save(program, good)
    code = f"__import__('pathlib').Path('{mark}').touch()"
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(evil, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("models/model.json"):
                text = re.sub(r'"expr_str": ?"[^"]*"', f'"expr_str": "{code}"', content.decode())
                content = text.encode()
            target.writestr(name, content)
    for path in (good, evil):
        with path.open("rb") as file, pytest.raises(Problem) as refused:
            read_model_header(file)
        assert refused.value.code == "pt2_refused"
        assert "torch.onnx.export" in refused.value.detail
    assert not mark.exists()
    # The evidence; once this fails, the decision may be taken again.
    with contextlib.suppress(Exception):
        torch.export.load(evil)
    assert mark.exists()
