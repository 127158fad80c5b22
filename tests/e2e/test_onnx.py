"""A team's own network and images: ONNX and a zip of PNG folders in, ONNX out."""

import io
import json
import zipfile

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from atmc_core.networks.architectures import build

CLASSES = ("ant", "bee", "cat")
SHORT = (
    "--set=training.robust_epochs=1",
    "--set=training.compression_epochs=1",
    "--set=training.finish_epochs=0",
    "--set=training.batch_size=16",
    "--set=threat.steps=1",
    "--set=evaluation.pgd_steps=2",
    "--set=evaluation.pgd_restarts=1",
    "--set=evaluation.curve_steps=1",
)


def _images(count):
    rng = np.random.default_rng(count)
    for label in range(len(CLASSES)):
        for number in range(count):
            pixels = rng.integers(0, 100, (32, 32, 3), dtype=np.uint8)
            pixels[..., label] += 100
            yield label, number, pixels


@pytest.mark.slow
def test_an_onnx_network_and_folders_of_images_come_back_as_onnx(atmc, tmp_path):
    torch.manual_seed(0)
    network = build("torchvision/mobilenet_v2", len(CLASSES)).eval()
    torch.onnx.export(
        network,
        (torch.rand(1, 3, 32, 32),),
        tmp_path / "net.onnx",
        dynamo=False,
        opset_version=17,
        input_names=["pixels"],
        output_names=["scores"],
        dynamic_axes={"pixels": {0: "n"}},
    )
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for split, count in (("train", 12), ("test", 8)):
            for label, number, pixels in _images(count):
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "PNG")
                name = f"{split}/{CLASSES[label]}/{number}.png"
                archive.writestr(name, buffer.getvalue())
    files = ("--model", tmp_path / "net.onnx", "--data", tmp_path / "images.zip")
    target = ("--density=0.3", "--bits=8", "--epsilon=0.01")
    done = atmc("submit", *files, "--architecture=onnx", *target, *SHORT, "--json")
    assert done.returncode == 0, done.stderr
    job = json.loads(done.stdout)
    assert atmc("download", job["id"], "-o", tmp_path / "out").returncode == 0

    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    assert [each.name for each in session.get_inputs()] == ["pixels"]
    assert [each.name for each in session.get_outputs()] == ["scores"]
    rows = list(_images(8))
    images = np.stack([pixels for _, _, pixels in rows]).transpose(0, 3, 1, 2)
    (logits,) = session.run(None, {"pixels": images.astype(np.float32) / 255})
    right = logits.argmax(1) == np.array([label for label, _, _ in rows])
    assert right.mean() == job["headline"]["clean_accuracy_after"]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["inputs"]["class_names"] == list(CLASSES)
    assert [note["code"] for note in report["inputs"]["notes"]] == ["validation_split_cut"]
