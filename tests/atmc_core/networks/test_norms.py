"""Batch norms do the same without statistics of their own, and training gets them back."""

import copy

import torch
from torch import nn

from atmc_core.networks.architectures import build
from atmc_core.networks.norms import restore_statistics, settled


def _network() -> nn.Module:
    torch.manual_seed(0)
    network = build("normed_clipped_cnn", 10)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if name.startswith("norm") and tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape) + ("bias" not in name))
    return network


def test_training_goes_on_from_what_the_settled_network_computes() -> None:
    torch.manual_seed(0)
    images = torch.rand(64, 1, 28, 28)
    network = _network().eval()
    norms = settled(network)
    assert {name.rpartition(".")[2] for name in norms} == {
        "weight",
        "bias",
        "running_mean",
        "running_var",
    }
    other = copy.deepcopy(network)
    other.load_state_dict(norms, strict=False)
    with torch.no_grad():
        wanted = network(images)
        assert torch.allclose(other(images), wanted, atol=1e-5)
        astray = copy.deepcopy(other).train()(images)
        restore_statistics(other, images)
        assert torch.allclose(other(images), wanted, atol=1e-5)
        # In training mode, too, it is that network on these images, which it was not before.
        assert torch.allclose(other.train()(images), wanted, atol=1e-4)
    assert (astray - wanted).abs().max() > 0.1
    assert not any(module._forward_pre_hooks for module in other.modules())


def test_norms_without_gains_or_statistics_stay() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3),
        nn.BatchNorm2d(2, affine=False),
        nn.BatchNorm2d(2, track_running_stats=False),
    )
    before = copy.deepcopy(network.state_dict())
    assert settled(network) == {}
    restore_statistics(network, torch.rand(4, 1, 8, 8))
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())


def test_a_norm_of_two_names_does_the_same() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(2)
    network = nn.Sequential(norm, nn.Conv2d(2, 2, 3), norm).eval()
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(torch.tensor([0.3, -0.2]))
    norm.running_var.copy_(torch.tensor([0.1, 4.0]))
    images = torch.rand(8, 2, 6, 6)
    with torch.no_grad():
        wanted = network(images)
    norms = settled(network)
    assert torch.equal(norms["0.weight"], norms["2.weight"])
    network.load_state_dict(norms, strict=False)
    with torch.no_grad():
        assert torch.allclose(network(images), wanted, atol=1e-5)
        restore_statistics(network, images)
        assert torch.allclose(network(images), wanted, atol=1e-5)
