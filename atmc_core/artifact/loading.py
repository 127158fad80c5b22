"""Reads a compressed network for use."""

from pathlib import Path

from torch import nn

from atmc_core.artifact.reading import load as load_model
from atmc_core.networks.blueprint import OWN


def load(path: str | Path, *, network: nn.Module | None = None) -> nn.Module:
    """Read a ``.atmc`` file as a network in evaluation mode, with its weights composed.

    If the file is of a known architecture (see ``register_architecture``) or of an ONNX graph, it
    says what to build, and the result contains the normalisation. If it is of a network of your
    own, pass such a network.

    Args:
        path: the file.
        network: a network with the same modules as the one that was compressed; its weights do not
            matter, and it is copied.

    Returns:
        A module that maps images ``[N, C, H, W]`` to logits ``[N, classes]``, on the device of
        ``network``, or else on the CPU. If whole channels were dropped, its layers are smaller.

    Raises:
        InvalidInput: ``malformed_artifact`` if it is no such file; ``invalid_value`` if ``network``
            is missing, or given for a file that says what to build; ``tensor_mismatch``, with the
            tensor's name, if ``network`` is not like the one that was compressed.
        OSError: if the file cannot be read.

    Example:
        >>> import tempfile
        >>> from torch import nn
        >>> from atmc_core import Compressor
        >>> def mine():
        ...     return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        >>> compressor = Compressor(mine(), density=0.5, bits=8, steps=0, factorize=False)
        >>> compressor.freeze()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     size = compressor.save(f"{folder}/small.atmc")
        ...     network = load(f"{folder}/small.atmc", network=mine())
        >>> int((network[1].weight != 0).sum()) <= 320
        True
    """
    model = load_model(Path(path), network)
    return model.network() if model.architecture == OWN else model.classifier()
