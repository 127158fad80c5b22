"""Known networks are those that their papers describe."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnxruntime import InferenceSession

from atmc_core.factors.views import dense_weights
from atmc_core.networks.architectures import build, get_architecture
from benchmarks.datasets import data_folder

_PUBLISHED = (data_folder() or Path()) / "networks" / "trades_mnist_smallcnn.onnx"


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("digits_cnn", 38_160),
        ("lenet", 430_500),
        ("small_cnn", 311_600),
        ("strided_cnn", 329_448),
        ("wide_strided_cnn", 316_704),
        ("clipped_cnn", 316_705),
        ("wide_clipped_cnn", 581_409),
        ("normed_clipped_cnn", 581_409),
        ("wide_resnet_16_8", 10_954_160),
    ],
)
def test_a_network_has_its_weights_and_takes_its_images(name: str, weights: int) -> None:
    """WRN-16-8: the paper's table says 11.0 M parameters."""
    with torch.device("meta"):
        network = build(name, 10)
        logits = network.eval()(torch.empty(2, *get_architecture(name).input_shape))
    assert sum(weight.numel() for weight, _ in dense_weights(network).values()) == weights
    assert logits.shape == (2, 10)


@pytest.mark.skipif(
    not _PUBLISHED.is_file(), reason="name the folder of networks/ in ATMC_DATA_DIR"
)
def test_the_checkpoint_of_trades_fits_and_computes_the_same() -> None:
    published = onnx.load(_PUBLISHED)
    network = build("small_cnn", 10).eval()
    network.load_state_dict(
        {
            tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
            for tensor in published.graph.initializer
        }
    )
    images = np.random.default_rng(0).random((4, 1, 28, 28), np.float32)
    (expected,) = InferenceSession(_PUBLISHED).run(None, {published.graph.input[0].name: images})
    with torch.no_grad():
        assert np.allclose(network(torch.from_numpy(images)), expected, atol=1e-4)
