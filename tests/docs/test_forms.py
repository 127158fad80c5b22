"""Files, code and commands of the documents that need no service."""

import ast
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from torch import Tensor, nn

from atmc_client.cli import cli
from atmc_client.cli.profile import _defaults
from atmc_client.profiles import read_profiles
from atmc_core.artifact import save
from atmc_core.job.run import run as run_job
from atmc_spec import read_spec
from jobstore.connections import Connections, Place
from jobstore.settings import Settings
from tests.atmc_reader.test_format import _model
from tests.docs.blocks import block, named, run

LABELS = torch.arange(8) % 4


class Mine(nn.Module):
    """A network of a reader's own."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 8, 3, padding=1)
        self.last = nn.Linear(8 * 16, 4)

    def forward(self, images: Tensor) -> Tensor:
        features = nn.functional.max_pool2d(torch.relu(self.convolution(images)), 2)
        return self.last(features.flatten(1))  # type: ignore[no-any-return]


@pytest.fixture
def reader_s() -> dict[str, Any]:
    """What code in a document takes for granted."""
    torch.manual_seed(0)
    images = torch.rand(8, 1, 8, 8)

    def thirty_epochs(loader: list[Any]) -> Iterator[Any]:
        yield from loader

    given = {"loader": [(images, LABELS)], "images": images, "labels": LABELS}
    return given | {"network": Mine(), "Mine": Mine, "thirty_epochs": thirty_epochs}


def test_a_network_of_one_s_own_is_compressed_and_read_back(
    reader_s: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(block("README.md", "from atmc_core import PGD"), reader_s)
    loaded = reader_s["network"]
    assert isinstance(loaded, Mine)
    kept = sum(int(torch.count_nonzero(each.weight)) for each in (loaded.convolution, loaded.last))
    assert kept > 0
    assert 0 < reader_s["compressor"].nonzeros() <= 0.1 * (8 * 9 + 4 * 128)
    assert (tmp_path / "small.atmc").stat().st_size < 1000


def test_what_is_proven_is_asked_for_without_the_service(reader_s: dict[str, Any]) -> None:
    reader_s["network"] = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    exec(block("docs/proofs.md", "from atmc_core import certify"), reader_s)
    assert reader_s["found"].proven.shape == (8,)


def test_the_job_s_function_has_the_signature_that_is_written() -> None:
    (written,) = ast.parse(block("docs/interfaces/job-folder.md", "def run(")).body
    assert isinstance(written, ast.FunctionDef)
    (real,) = ast.parse(inspect.getsource(run_job)).body
    assert isinstance(real, ast.FunctionDef)
    assert ast.dump(written.args) == ast.dump(real.args)


def test_the_spec_that_is_shown_is_one() -> None:
    document = json.loads(block("docs/interfaces/spec.md", "{"))
    spec = read_spec(document)
    assert spec.method == "atmc"
    assert spec.model_dump(exclude_unset=True).keys() == document.keys()


def test_the_profiles_that_are_shown_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "team-ca.pem").touch()
    file = tmp_path / "atmc.toml"
    file.write_text(block("docs/profiles.md", "[profile.default]"))
    file.chmod(0o600)
    profiles = read_profiles(file)
    assert profiles["team"].ca == tmp_path / "team-ca.pem"
    assert _defaults(cli, profiles["team"].options, root=True) == {
        "submit": {"preset": "fast", "epsilon": "8/255", "settings": ["training.rho=0.01"]}
        | {"wait": False},
        "sweeps": {"show": {"as_json": True}},
    }


def test_the_connections_that_are_shown_can_be_read(tmp_path: Path) -> None:
    text = block("docs/operations.md", "[lake]")
    for secret in re.findall(r'"/run/secrets/([\w-]+)"', text):
        (tmp_path / secret).write_text(f"the {secret}")
    (tmp_path / "connections.toml").write_text(text.replace("/run/secrets", str(tmp_path)))
    found = Connections.from_settings(Settings(connections=tmp_path / "connections.toml"))
    assert [each.name for each in found.of("red")] == ["lake", "cloud", "web"]
    assert [each.name for each in found.of("default")] == ["lake"]
    file = Place.of("https://data.example.com/sets/one.zip")
    (header,) = found.find("red", None, file).headers()
    assert header == ("Authorization", "Bearer the web-token")


def test_a_signing_key_is_made(tmp_path: Path) -> None:
    said = run(block("docs/operations.md", "openssl genpkey"), tmp_path)
    assert re.match(r"[0-9a-f]{64} ", said)
    assert load_pem_public_key((tmp_path / "service.pub").read_bytes())


def test_a_file_is_looked_into(tmp_path: Path) -> None:
    save(_model(), tmp_path / "small.atmc")
    script = named(block("docs/format.md", "python -m atmc_reader FILE"), FILE="small.atmc")
    said = run(script.replace("OUT.npz", "weights.npz"), tmp_path)
    assert (tmp_path / "weights.npz").stat().st_size > 0
    assert said.count("1.weight") >= 2
