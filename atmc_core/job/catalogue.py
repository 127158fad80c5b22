"""All that a job may ask for, as JSON, which workers publish so that the API needs no PyTorch."""

from dataclasses import dataclass
from typing import Any

from atmc_core.job.methods import all_methods
from atmc_core.networks.architectures import ARCHITECTURES
from atmc_core.networks.architectures.torchvision_models import variants
from atmc_core.networks.blueprint import ONNX
from atmc_core.networks.torchvision_import import is_installed
from atmc_core.report import schema as report_schema
from atmc_spec import AttackName, Evaluation

#: Each attack's description, and the fields of a job spec's ``evaluation`` that configure it.
ATTACKS: dict[AttackName, tuple[str, tuple[str, ...]]] = {
    "fgsm": ("One signed (or normalised) gradient step (Goodfellow et al., 2015)", ()),
    "pgd": (
        (
            "Projected gradient ascent on the cross-entropy with random starts "
            "(Madry et al., 2018); the step is 2.5 epsilon / steps"
        ),
        ("pgd_steps", "pgd_restarts"),
    ),
    "pgd_cw": (
        "PGD on the margin of the logits (Carlini and Wagner, 2017)",
        ("pgd_steps", "pgd_restarts"),
    ),
    "pgd_dlr": (
        "PGD on the difference of logits ratio (Croce and Hein, 2020); from three classes on",
        ("pgd_steps", "pgd_restarts"),
    ),
    "pgd_smooth": (
        (
            "PGD whose gradients flow through all values that a maximum was taken of, as in max "
            "pooling, and through rounding (BPDA; Athalye et al., 2018); it runs several times, "
            "with different temperatures, losses and step sizes. Where there is nothing to "
            "smooth, PGD's outcome stands for it"
        ),
        ("pgd_steps", "smooth_restarts"),
    ),
    "wrm": (
        (
            "Ascent on the loss against the squared length of the perturbation, within no ball "
            "(Sinha et al., 2018); stands apart from robust accuracy"
        ),
        ("wrm_steps", "wrm_gamma"),
    ),
    "autoattack": (
        (
            "APGD-CE, APGD-T, FAB-T and Square in turn, each on what is still standing "
            "(Croce and Hein, 2020)"
        ),
        ("autoattack_steps", "autoattack_targets", "square_queries"),
    ),
    "apgd_ce": ("Auto-PGD on the cross-entropy (Croce and Hein, 2020)", ("autoattack_steps",)),
    "apgd_t": (
        "Auto-PGD on the targeted difference of logits ratio (Croce and Hein, 2020)",
        ("autoattack_steps", "autoattack_targets"),
    ),
    "fab_t": (
        "Fast adaptive boundary attack on targets (Croce and Hein, 2020)",
        ("autoattack_steps", "autoattack_targets"),
    ),
    "square": (
        "Random search by squares, without gradients (Andriushchenko et al., 2020)",
        ("square_queries",),
    ),
}


@dataclass(frozen=True)
class CatalogueEntry:
    """One thing that a job may ask for, or the schema of something that jobs make.

    Attributes:
        kind: ``architecture``, ``method``, ``attack`` or ``schema``.
        name: unique within its kind.
        document: a JSON object that describes it (see docs/interfaces/catalogue.md).
    """

    kind: str
    name: str
    document: dict[str, Any]


def catalogue() -> list[CatalogueEntry]:
    """Every architecture, method, attack and schema of this version."""
    entries = [
        CatalogueEntry("architecture", name, architecture.describe())
        for name, architecture in ARCHITECTURES.items()
    ]
    entries += _open_architectures()
    for name, method in all_methods().items():
        document = {
            "name": name,
            "description": method.description,
            "spec_schema": method.spec.json_schema(),
        }
        entries.append(CatalogueEntry("method", name, document))
    for attack, (description, options) in ATTACKS.items():
        document = {
            "name": attack,
            "description": description,
            "options_schema": _options_schema(options),
        }
        entries.append(CatalogueEntry("attack", attack, document))
    entries.append(CatalogueEntry("schema", "report", report_schema()))
    return entries


def _open_architectures() -> list[CatalogueEntry]:
    """The architectures whose tensors only the job can check, when it has read the upload."""
    documents: list[dict[str, Any]] = [
        {
            "name": ONNX,
            "description": "An ONNX file of a feed-forward convolutional classifier, any graph",
            "input_shape": [None, None, None],
            "tensors": None,
        }
    ]
    if is_installed():
        names = variants()
        documents.append(
            {
                "name": "torchvision",
                "description": "torchvision's image classifiers at any input size, as "
                f"torchvision/NAME; NAME is one of {', '.join(names)}",
                "input_shape": [3, None, None],
                "tensors": None,
                "variants": names,
            }
        )
    return [CatalogueEntry("architecture", each["name"], each) for each in documents]


def _options_schema(names: tuple[str, ...]) -> dict[str, Any]:
    """The JSON Schema of a job spec's part that configures an attack.

    Args:
        names: the fields of ``evaluation`` that do.
    """
    known = Evaluation.json_schema()["properties"]
    options = {name: known[name] for name in names}
    evaluation = {"type": "object", "properties": options, "additionalProperties": False}
    return {
        "type": "object",
        "properties": {"evaluation": evaluation} if options else {},
        "additionalProperties": False,
    }
