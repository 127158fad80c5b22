"""What a job is given: the spec, the uploaded network and the images, read and checked."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from atmc_core.artifact import CompressedModel, float_state
from atmc_core.artifact.budget import Budget
from atmc_core.data import (
    Augmentation,
    DataSet,
    Reading,
    Split,
    check_against,
    load_dataset,
    note_missing_classes,
)
from atmc_core.evaluation.plan import evaluated_indices
from atmc_core.factors import splitting
from atmc_core.factors.factors import Factors, NamedFactors
from atmc_core.factors.views import MatrixView, compressible_weights, dense_weights
from atmc_core.job.denser import Denser
from atmc_core.job.streams import REPORT
from atmc_core.networks.blueprint import Blueprint
from atmc_core.networks.classifier import Classifier
from atmc_core.networks.multiply_adds import layer_positions
from atmc_core.networks.upload import Loaded, ModelInput, open_upload
from atmc_core.report.checks import Check
from atmc_core.solver.support import Channels, Structure
from atmc_spec import JobSpec, Target
from atmc_spec.names import FLOAT_BITS, SmallTensorBits


@dataclass(frozen=True)
class Inputs:
    """What a job is given, ready for work.

    Attributes:
        spec: what is asked for.
        model: the uploaded file and what its uploader said of it.
        blueprint: how to build the network.
        notes: the changes made while the network was read, each a code and a sentence.
        read: the images as they were read, perhaps in memory maps.
        data: the same images, on the job's device as far as they fit there.
        classifier: the uploaded classifier, on the device; training changes it in place.
        results: the folder that the job writes its results to.
        checks: checks for the report that were raised before anything was evaluated.
        denser: the compressed network that compression starts from; None: the trained dense one.
    """

    spec: JobSpec
    model: ModelInput
    blueprint: Blueprint
    notes: tuple[tuple[str, str], ...]
    read: DataSet
    data: DataSet
    classifier: Classifier
    results: Path
    checks: tuple[Check, ...] = ()
    denser: Denser | None = None

    @property
    def artifact(self) -> Path:
        """Where the compressed model is written."""
        return self.results / "model.atmc"

    @property
    def dense_artifact(self) -> Path:
        """Where the dense network that was made robust is written."""
        return self.results / "dense.atmc"

    @property
    def num_classes(self) -> int:
        """The number of classes that the network tells apart."""
        return self.blueprint.num_classes

    @property
    def device(self) -> torch.device:
        """The device on which the job computes."""
        # Of a buffer, since a network that is only evaluated may have no parameters.
        return self.classifier.device

    @property
    def report_seed(self) -> int:
        """The seed of all random numbers in the evaluations."""
        return self.spec.seed + REPORT

    @cached_property
    def indices(self) -> Tensor:
        """The indices of the evaluated images in their split, int64 ``[N]`` on the CPU."""
        labels = self.data.evaluated(self.spec.evaluation.split).labels
        return evaluated_indices(labels, self.spec.evaluation, self.report_seed)

    @cached_property
    def evaluated(self) -> Split:
        """The evaluated images and their labels."""
        return self.data.evaluated(self.spec.evaluation.split).select(self.indices)

    @property
    def target(self) -> Target:
        """How small the result is to be.

        Raises:
            ValueError: if the spec has no target, because its method only evaluates.
        """
        if self.spec.target is None:
            raise ValueError(f"a spec of {self.spec.method} has no target")
        return self.spec.target

    @cached_property
    def views(self) -> dict[str, MatrixView]:
        """How the conv and linear weights are seen as matrices, by name."""
        return compressible_weights(self.classifier.network)

    @property
    def num_weights(self) -> int:
        """N, the number of dense conv and linear weights."""
        return sum(math.prod(view.shape) for view in self.views.values())

    @cached_property
    def positions(self) -> dict[str, int]:
        """At how many positions an image meets each conv and linear weight, by name."""
        network = self.classifier.network
        counts = layer_positions(network, self.blueprint.input_shape)
        return {
            f"{name}.weight": counts.get(module, 0)
            for name, module in network.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear)
        }

    def new_structure(self) -> Structure:
        """A new object that keeps or drops what the target asks for: single entries or channels."""
        if self.target.structure == "channel":
            if self.target.macs is None:
                return Channels(self.classifier.network)
            return Channels(self.classifier.network, self.positions)
        return Structure(self.spec.training.importance)

    @cached_property
    def budget(self) -> Budget:
        """The number of non-zeros that the target allows, and how it is found."""
        zeros = {
            name: Factors(view, *(torch.zeros(shape) for shape in view.factor_shapes))
            for name, view in self.views.items()
        }
        blank = self.compressed(zeros, k=self.num_weights)
        return Budget(self.target, blank, self.num_weights, self.new_structure())

    def compressed(self, factors: NamedFactors, k: int) -> CompressedModel:
        """The present classifier as an artifact of the target's bits.

        Args:
            factors: U, V and C of every conv and linear weight, by name.
            k: the number of non-zeros that they may have.
        """
        return self._packed(factors, k, self.target.bits, self.target.small_tensor_bits)

    def dense(self) -> CompressedModel:
        """The present classifier as an artifact that loses nothing."""
        weights = dense_weights(self.classifier.network)
        return self._packed(splitting.plain(weights), self.num_weights, FLOAT_BITS, FLOAT_BITS)

    def _packed(
        self, factors: NamedFactors, k: int, bits: int, small_tensor_bits: SmallTensorBits
    ) -> CompressedModel:
        return CompressedModel(
            architecture=self.blueprint.architecture,
            num_classes=self.num_classes,
            normalization=self.model.normalization,
            factors=factors,
            others=float_state(self.classifier.network, factors, small_tensor_bits),
            bits=bits,
            k=k,
            input_shape=self.blueprint.open_shape,
            graph=self.blueprint.graph,
        )


def load_inputs(
    model: ModelInput, dataset: Path, spec: JobSpec, reading: Reading
) -> tuple[Loaded, DataSet]:
    """Read the uploaded network, and the images with as many channels as the network reads.

    Args:
        reading: how to read images; its ``channels`` are replaced by the network's.

    Raises:
        InvalidInput: if the network or the images cannot be used, or do not fit each other.
    """
    upload = open_upload(model)
    fraction = spec.training.validation_fraction
    reading = replace(reading, channels=upload.input_shape[0])
    data = load_dataset(dataset, fraction, spec.seed, reading)
    loaded = upload.load(data.test.images.shape[1:])
    check_against(data, loaded.blueprint.input_shape, loaded.blueprint.num_classes)
    data = note_missing_classes(data, loaded.blueprint.num_classes)
    augmentation = Augmentation(spec.training.flip, spec.training.shift)
    augmentation.check(*loaded.blueprint.input_shape[1:])
    return loaded, data
