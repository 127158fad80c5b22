"""A network in int8 is made, measured in onnxruntime, and offered only if it loses little."""

from pathlib import Path
from typing import Any

import jsonschema
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from atmc_core.data import load_dataset
from atmc_core.networks.onnx.exporter import export
from atmc_core.networks.onnx.quantized import quantize
from atmc_core.networks.onnx.runtime import runner
from atmc_core.networks.upload import ModelInput
from atmc_core.report import schema
from tests.atmc_core.job.whole_jobs import EVALUATION, THREAT, read_report, run_job


def test_weights_are_in_int8_with_a_scale_a_channel_and_logits_stay_close(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 5),
    )
    images, whole, small = torch.rand(40, 1, 8, 8), tmp_path / "a.onnx", tmp_path / "b.onnx"
    export(network, (1, 8, 8), whole, input_name="images", output_name="logits")
    quantize(whole, small, images)
    model = onnx.load(small)
    operators = {node.op_type for node in model.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    weights = [each for each in model.graph.initializer if each.data_type == onnx.TensorProto.INT8]
    assert {(8, 1, 3, 3), (8, 8, 3, 3)} <= {tuple(each.dims) for each in weights}
    scales = [list(each.dims) for each in model.graph.initializer if each.name.endswith("_scale")]
    assert [8] in scales
    expected, found = runner(whole)(images), runner(small)(images)
    assert 0 < (found - expected).abs().max() < 0.1 * expected.abs().max()


def _run(model: ModelInput, data: Path, folder: Path, drop: float | None) -> dict[str, Any]:
    target = {"density": 0.3, "bits": 8, "int8": True}
    document = {
        "method": "nap",
        "target": target if drop is None else target | {"int8_drop": drop},
        "threat": THREAT,
        "training": {"robust_epochs": 0, "compression_epochs": 1, "finish_epochs": 1},
        "evaluation": EVALUATION
        | {
            "level": "quick",
            "attacks": ["fgsm"],
            "max_images": 40,
            "pgd_steps": 2,
            "speed": drop is not None,
        },
    }
    run_job(document, model, data, folder)
    report = read_report(folder)
    jsonschema.validate(report, schema())
    return report


def test_it_is_offered_with_its_accuracy_on_the_same_images(
    digits_model: ModelInput, digits_path: Path, tmp_path: Path
) -> None:
    report = _run(digits_model, digits_path, tmp_path, 1.0)
    found, folder = report["int8"], tmp_path / "results"
    assert found["offered"]
    figures = found["figures"]
    path = folder / "model.int8.onnx"
    assert figures["bytes"] == path.stat().st_size
    assert figures["float_clean"]["accuracy"] == report["after"]["clean"]["accuracy"]
    assert figures["robust"]["correct"] <= figures["transferred"]["correct"]
    assert figures["robust"]["correct"] <= figures["square"]["correct"]
    stands = figures["float_robust"]["correct"]
    assert stands - figures["robust"]["correct"] <= figures["fallen"] <= stands
    # Counted again, by hand, on the images that the report lists.
    data = load_dataset(digits_path, 0.1, 0)
    images, labels = data.test.batch(torch.tensor(report["evaluation"]["indices"]))
    session = onnxruntime.InferenceSession(path)
    (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    assert int((logits.argmax(1) == labels.numpy()).sum()) == figures["clean"]["correct"]
    assert "int8" in {each["network"] for each in report["speed"]["latency"]}
    assert "In int8 it is" in report["speed"]["note"]
    page = (folder / "report.html").read_text()
    assert "model.int8.onnx is offered" in page


def test_one_that_loses_more_than_is_asked_for_is_not_offered(
    digits_model: ModelInput, digits_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(file: Path) -> Any:
        return lambda images: -runner(file)(images)

    monkeypatch.setattr("atmc_core.job.int8.runner", wrong)
    found = _run(digits_model, digits_path, tmp_path, None)["int8"]
    assert not found["offered"]
    assert found["limit"] == 0.01
    assert "clean accuracy" in found["reason"]
    assert not (tmp_path / "results" / "model.int8.onnx").exists()
