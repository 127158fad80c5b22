"""A compressed network, read back for use."""

from pathlib import Path

from torch import nn

from atmc_core.artifact import format as files
from atmc_core.networks.blueprint import OWN


def load(path: str | Path, *, network: nn.Module | None = None) -> nn.Module:
    """Read a ``.atmc`` file as a network in evaluation mode, its weights composed.

    A file of a known architecture (see ``register_architecture``) or of an ONNX graph says what to
    build; its normalisation is inside. One of a network of one's own needs one like it.

    Args:
        network: like the one that was compressed, of whatever weights; it is copied.

    Returns:
        A module that maps images ``[N, C, H, W]`` to logits ``[N, classes]``; on the CPU, or where
        ``network`` lies. Where whole channels are gone it has fewer.

    Raises:
        InvalidInput: ``malformed_artifact`` for what is no such file; ``invalid_value`` for a
            network that is missing or not wanted; ``tensor_mismatch``, with the tensor's name, for
            one that is not the compressed one's like.
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
    model = files.load(Path(path), network)
    return model.network() if model.architecture == OWN else model.classifier()
