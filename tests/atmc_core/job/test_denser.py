"""A job that starts from the compressed network of a denser one."""

import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from atmc_core import artifact
from atmc_core.artifact import CompressedModel, float_state
from atmc_core.compressor import Compressor
from atmc_core.data import Split
from atmc_core.errors import InvalidInput
from atmc_core.factors import splitting
from atmc_core.factors.views import dense_weights
from atmc_core.job.denser import Denser, DenserInput, read_denser
from atmc_core.job.planning import is_near, shorten_from_denser
from atmc_core.networks.architectures import build
from atmc_core.networks.blueprint import Blueprint
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.networks.upload import ModelInput
from atmc_core.report import schema
from atmc_core.solver.support import Structure
from atmc_core.training.effort import TrainingPlan
from atmc_spec import Training
from tests.atmc_core.job.whole_jobs import EVALUATION, THREAT, read_report, run_job

TRAINING = {"robust_epochs": 0, "compression_epochs": 1, "finish_epochs": 0}


def of_file(path: Path, job_id: str | None = "job_denser") -> DenserInput:
    return DenserInput(path, sha256(path.read_bytes()).hexdigest(), job_id)


def spec(method: str, **changes: Any) -> dict[str, Any]:
    document = {
        "method": method,
        "target": {"density": 0.05, "bits": 3},
        "threat": THREAT | {"steps": 1},
        "training": TRAINING,
        "evaluation": EVALUATION | {"level": "quick", "max_images": 40},
    }
    return document | changes


def test_compression_goes_on_from_the_denser_network_and_the_report_says_so(
    compressed: Path, digits_model: ModelInput, digits_path: Path, tmp_path: Path
) -> None:
    denser = of_file(compressed / "results" / "model.atmc")
    started = spec("al0", training=TRAINING | {"learning_rate": 1e-6})
    headline, _ = run_job(started, digits_model, digits_path, tmp_path, denser=denser)
    report = read_report(tmp_path)
    jsonschema.validate(report, schema())
    model = artifact.load(denser.path)
    assert report["start"] == {
        "job_id": "job_denser",
        "sha256": denser.sha256,
        "k": model.k,
        "nonzeros": sum(model.nonzeros()),
        "bits": 4,
    }
    assert "that of <code>job_denser</code>" in (tmp_path / "results/report.html").read_text()
    file = tmp_path / "results" / "model.atmc"
    smaller = artifact.load(file)
    assert headline["nonzeros"] <= headline["k"] < sum(model.nonzeros())
    for name, factors in smaller.factors.items():
        kept, before = factors.compose() != 0, model.factors[name].compose() != 0
        assert not (kept & ~before).any(), name  # at this learning rate nothing moves
    command = [sys.executable, "-m", "atmc_core.reproduce", tmp_path / "results/report.json"]
    done = subprocess.run([*command, file, "--data", digits_path, "--json"], capture_output=True)
    assert json.loads(done.stdout)["differences"] == []


def test_factors_go_on_as_they_are_in_the_file(
    digits_classifier: Classifier, tmp_path: Path
) -> None:
    network = digits_classifier.network
    factors = splitting.interpolative(dense_weights(network))
    Structure().shrink(factors, 1000)
    model = CompressedModel(
        "digits_cnn", 10, Normalization(), factors, float_state(network, factors), bits=32, k=1000
    )
    artifact.save(model, tmp_path / "model.atmc")
    read = read_denser(
        of_file(tmp_path / "model.atmc"), network, Blueprint.of("digits_cnn", 10, None, None)
    )
    own = read.factors(torch.device("cpu"))
    assert own is not None
    assert sum(int(t.count_nonzero()) for each in own.values() for t in each.tensors) == 1000
    for name, each in own.items():
        assert torch.equal(each.compose(), read.model.factors[name].compose()), name
        assert each.u.numel() <= read.model.factors[name].u.numel()
    images = torch.randint(0, 256, (8, 1, 8, 8), dtype=torch.uint8)
    read.load_into(digits_classifier, Split(images, torch.arange(8) % 10))
    assert torch.equal(network.state_dict()[name], own[name].compose())
    compressor = Compressor(network, k=500, bits=2, steps=2, factors=own, shrink_fraction=0.5)
    assert compressor.nonzeros() == 1000  # The budget begins where the denser network ended.
    for _ in range(2):
        network(torch.rand(4, 1, 8, 8)).square().sum().backward()
        compressor.step()
    assert compressor.nonzeros() <= 500


def test_training_goes_on_with_norms_that_know_the_images() -> None:
    torch.manual_seed(0)
    network = build("normed_clipped_cnn", 10)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.startswith("norm") and tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape) + ("bias" not in name))
    factors = splitting.plain(dense_weights(network))
    model = CompressedModel(
        "normed_clipped_cnn",
        10,
        Normalization(),
        factors,
        float_state(network, factors),
        bits=32,
        k=10**6,
    )
    split = Split(torch.randint(0, 256, (64, 1, 28, 28), dtype=torch.uint8), torch.arange(64) % 10)
    images, _ = split.batch(slice(None))
    started = Classifier(build("normed_clipped_cnn", 10), Normalization(), channels=1)
    Denser(DenserInput(Path(), ""), model).load_into(started, split)
    with torch.no_grad():
        wanted = network.eval()(images)
        assert torch.allclose(started(images), wanted, atol=1e-4)
        assert torch.allclose(started.train()(images), wanted, atol=1e-3)


def test_fewer_epochs_are_left_where_the_spec_leaves_them_to_the_preset(compressed: Path) -> None:
    model = artifact.load(compressed / "results" / "model.atmc")
    k, bits = model.k, model.bits
    near = [
        is_near(model, k, bits),
        is_near(model, round(k / 1.2), bits),
        is_near(model, round(k / 1.3), bits),
        is_near(model, k, bits - 1),
        is_near(model, None, bits),
    ]
    assert near == [True, True, False, False, False]
    training = Training(preset="standard", finish_epochs=7)
    for near_by, epochs in ((False, 8), (True, 4)):
        effort = shorten_from_denser(training, TrainingPlan(training.effort()), near=near_by).effort
        lengths = (effort.robust_epochs, effort.compression_epochs, effort.finish_epochs)
        assert lengths == (20, epochs, 7)


def test_a_network_that_does_not_fit_or_a_method_that_cannot_is_refused(
    compressed: Path,
    digits_classifier: Classifier,
    digits_model: ModelInput,
    digits_path: Path,
    tmp_path: Path,
) -> None:
    network = digits_classifier.network
    file = of_file(compressed / "results" / "model.atmc")
    blueprint = Blueprint.of("digits_cnn", 10, None, None)
    assert isinstance(read_denser(file, network, blueprint), Denser)
    with pytest.raises(InvalidInput, match="other bytes") as refusal:
        read_denser(DenserInput(file.path, "0" * 64), network, blueprint)
    assert (refusal.value.code, refusal.value.param) == ("unsuitable_start", "start_from")
    with pytest.raises(InvalidInput, match="digits_cnn of 10 classes"):
        read_denser(file, network, Blueprint.of("lenet", 10, None, None))
    with pytest.raises(InvalidInput, match="alr chooses no entries"):
        run_job(spec("alr"), digits_model, digits_path, tmp_path, denser=file)
