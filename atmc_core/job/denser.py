"""The compressed network of a denser job, from which a job's compression starts."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from atmc_core import artifact
from atmc_core.artifact import CompressedModel
from atmc_core.data import Split
from atmc_core.errors import InvalidInput
from atmc_core.factors.factors import Factors, NamedFactors
from atmc_core.factors.views import compressible_weights
from atmc_core.networks.blueprint import Blueprint
from atmc_core.networks.classifier import Classifier
from atmc_core.networks.norms import restore_statistics
from atmc_core.networks.state_dict import load_tensors

# So many images, from all over the training split, give batch norms their statistics.
_IMAGES = 256


@dataclass(frozen=True)
class DenserInput:
    """The file of a denser network, as a job is given it.

    Attributes:
        path: its ``model.atmc``.
        sha256: what its bytes hash to.
        job_id: the job that made it, for the report; None if nobody says.
    """

    path: Path
    sha256: str
    job_id: str | None = None


@dataclass(frozen=True)
class Denser:
    """A denser network that was read and fits the upload.

    Attributes:
        given: where it comes from.
        model: the network.
    """

    given: DenserInput
    model: CompressedModel

    def load_into(self, classifier: Classifier, split: Split) -> None:
        """Give the classifier the weights, biases and norms of the denser one.

        Args:
            classifier: the uploaded classifier; it is in evaluation mode afterwards.
            split: the training images, of which some give the norms the statistics that training
                goes on with.
        """
        load_tensors(classifier.network, self.model.state_dict(), strict=False)
        places = torch.linspace(0, len(split) - 1, min(len(split), _IMAGES)).long()
        restore_statistics(classifier, split.batch(places)[0])

    def factors(self, device: torch.device) -> NamedFactors | None:
        """Its U, V and C on a device, without the inner dimension's unused indices.

        Returns:
            None if nothing in it is factorised: then its weights say all.
        """
        own = self.model.factors
        if not any(_is_factorized(factors) for factors in own.values()):
            return None
        return {name: _on(_held(factors), device) for name, factors in own.items()}

    def to_json(self) -> dict[str, object]:
        """What the report says of it."""
        return {
            "job_id": self.given.job_id,
            "sha256": self.given.sha256,
            "k": self.model.k,
            "nonzeros": sum(self.model.nonzeros()),
            "bits": self.model.bits,
        }


def read_denser(given: DenserInput, network: nn.Module, blueprint: Blueprint) -> Denser:
    """Read the file, and check that it is a network like the uploaded one.

    Args:
        network: the uploaded network.
        blueprint: its description.

    Raises:
        InvalidInput: ``unsuitable_start`` if it is not, or has other bytes than were announced;
            ``malformed_artifact`` if it cannot be read.
    """
    if hashlib.sha256(given.path.read_bytes()).hexdigest() != given.sha256:
        raise _unsuitable("its file has other bytes than when the job was made")
    model = artifact.load(given.path)
    if (model.architecture, model.num_classes) != (blueprint.architecture, blueprint.num_classes):
        raise _unsuitable(f"it is a {model.architecture} of {model.num_classes} classes")
    if model.kept is not None:
        raise _unsuitable("channels are cut out of it, and it does not say which it had")
    shapes = {name: view.shape for name, view in compressible_weights(network).items()}
    if shapes != {name: factors.view.shape for name, factors in model.factors.items()}:
        raise _unsuitable("its layers are others than the upload's")
    own = network.state_dict()
    for name, tensor in model.others.items():
        if name not in own or own[name].shape != tensor.shape:
            raise _unsuitable(f"its {name} is not the upload's")
    return Denser(given, model)


def _unsuitable(why: str) -> InvalidInput:
    return InvalidInput(
        "unsuitable_start",
        f"compression cannot start from this network: {why}; name a job on the same upload, or "
        "leave start_from out",
        "start_from",
    )


def _is_factorized(factors: Factors) -> bool:
    return any(bool(tensor.any()) for tensor in factors.tensors if tensor is not factors.carried)


def _held(factors: Factors) -> Factors:
    """The factors with only those indices of the inner dimension at which there is anything."""
    used = factors.u.any(-2) | factors.v.any(-1)
    count = max(1, int(used.sum(-1).max()))
    basis = used.to(torch.int8).argsort(dim=-1, descending=True, stable=True)[:, :count]
    u, v, c = replace(factors, basis=basis).held(*factors.tensors)
    return replace(factors, u=u, v=v, c=c.clone(), basis=basis)


def _on(factors: Factors, device: torch.device) -> Factors:
    u, v, c = (tensor.to(device) for tensor in factors.tensors)
    assert factors.basis is not None
    return replace(factors, u=u, v=v, c=c, basis=factors.basis.to(device))
