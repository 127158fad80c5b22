"""Opens an uploaded network, checks it against its architecture, and builds it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from atmc_core.errors import InvalidInput
from atmc_core.networks.architectures import Architecture, get_architecture
from atmc_core.networks.architectures.torchvision_models import PREFIX, check_supported
from atmc_core.networks.blueprint import ONNX, Blueprint
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.networks.state_dict import fit_tensors, load_tensors, read_state_dicts
from atmc_spec.checkpoints import StateDict


@dataclass(frozen=True)
class ModelInput:
    """An uploaded network.

    Attributes:
        path: the file: a state dict (safetensors, or ``.pt`` of tensors and plain data), or ONNX.
        architecture: a known architecture's name, or ``onnx``.
        normalization: the normalisation in front of the network.
    """

    path: Path
    architecture: str
    normalization: Normalization = field(default_factory=Normalization)


@dataclass(frozen=True)
class Loaded:
    """A network that was built and has its weights.

    Attributes:
        blueprint: the network's description.
        network: the network, in training mode.
        notes: what was changed in reading it, as pairs of a code and a sentence.
    """

    blueprint: Blueprint
    network: nn.Module
    notes: tuple[tuple[str, str], ...] = ()

    def classifier(self, normalization: Normalization) -> Classifier:
        """The network behind its normalisation."""
        return Classifier(self.network, normalization, self.blueprint.input_shape[0])


class Upload(ABC):
    """An uploaded file that was read; building the network needs the shape of the images.

    Attributes:
        input_shape: channels, height and width of the images; None if the file leaves it open.
    """

    input_shape: tuple[int | None, int | None, int | None]

    @abstractmethod
    def load(self, images: Sequence[int]) -> Loaded:
        """Build the network and load its weights.

        Args:
            images: channels, height and width of the images.

        Raises:
            InvalidInput: if the file does not contain a network for such images.
        """


def open_upload(model: ModelInput) -> Upload:
    """Read the uploaded file.

    Raises:
        InvalidInput: if the file cannot be read, or its architecture is not known.
    """
    if model.architecture == ONNX:
        return _OnnxUpload(model.path)
    return _StateDictUpload(get_architecture(model.architecture), read_state_dicts(model.path))


class _StateDictUpload(Upload):
    def __init__(self, architecture: Architecture, found: Sequence[StateDict[Tensor]]) -> None:
        self.architecture, self.found = architecture, found
        self.input_shape = architecture.input_shape

    def load(self, images: Sequence[int]) -> Loaded:
        name = self.architecture.name
        expected = self.architecture.describe()["tensors"]
        tensors, fitted = fit_tensors(self.found, name, expected)
        check_finite(tensors)
        num_classes = fitted.dimensions["num_classes"]
        blueprint = Blueprint(name, num_classes, self.architecture.shape_for(images))
        network = blueprint.build()
        if name.startswith(PREFIX):
            check_supported(name, network, blueprint.input_shape)
        load_tensors(network, tensors, strict=False)
        return Loaded(blueprint, network.train(), fitted.notes)


class _OnnxUpload(Upload):
    def __init__(self, path: Path) -> None:
        # Imported here because it needs the onnx package, which may be missing.
        from atmc_core.networks.onnx.document import read_document

        self.path = path
        self.document = read_document(path)
        self.input_shape = self.document.input_shape

    def load(self, images: Sequence[int]) -> Loaded:
        from atmc_core.networks.onnx.importer import read_images_onnx
        from atmc_core.networks.onnx.verify import verify

        imported = read_images_onnx(self.document, images)
        _check_classes(imported.num_classes)
        graph = imported.graph
        blueprint = Blueprint(ONNX, imported.num_classes, graph.input_shape, graph)
        network = blueprint.build()
        load_tensors(network, imported.tensors, strict=False)
        verify(network, self.path, imported)
        return Loaded(blueprint, network.train(), imported.notes)


def check_finite(tensors: dict[str, Tensor]) -> None:
    """Check that an uploaded state dict holds numbers alone.

    Raises:
        InvalidInput: ``non_finite_weights``, with the tensor's name.
    """
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InvalidInput("non_finite_weights", f"{name} holds NaN or infinite values", name)


def _check_classes(num_classes: int) -> None:
    if num_classes < 2:
        raise InvalidInput(
            "tensor_mismatch",
            f"the network has {num_classes} class; a classifier has at least 2",
            "model",
        )
