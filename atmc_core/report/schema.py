"""The JSON Schema of the report (draft 2020-12)."""

from typing import Any, get_args

from atmc_core.certification import BOUNDS
from atmc_core.evaluation.plan import MIN_CURVE_POINTS
from atmc_spec import EPOCHS, AttackName, Level, Norm, Preset
from atmc_spec.names import Certify, EvaluatedSplit

#: The version of the report; it is increased when a program for older reports would misread it.
REPORT_VERSION = 2

Schema = dict[str, Any]

# What only the report of a job that compresses has, and what reports of before did not name.
_OPTIONAL = (
    "start",
    "reused",
    "dense",
    "after",
    "difference",
    "difference_from_dense",
    "layers",
    "training",
    "files",
)

_NUMBER: Schema = {"type": "number"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
_CHANGE: Schema = {"type": "number", "minimum": -1, "maximum": 1}
_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean"}
_DIGEST: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
_PNG: Schema = {"type": "string", "pattern": "^data:image/png;base64,"}


def schema() -> Schema:
    """The JSON Schema of ``report.json``, of this version."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:atmc:report:{REPORT_VERSION}",
        "title": "Robustness report",
        "description": (
            "Clean and robust accuracy of an uploaded classifier, of the dense network that the "
            "job made robust first, where it did, and of the compressed form, on the same images. "
            "Accuracies are shares of the evaluated images with 95 % Wilson "
            "intervals (low, high); epsilon is for images in [0, 1]."
        ),
        **_object(_report(), optional=_OPTIONAL),
        # The entries about the compressed model are all there or all missing.
        "dependentRequired": {
            "after": ["difference", "layers", "training"],
            "difference": ["after"],
            "layers": ["after"],
            "training": ["after"],
            # Of the dense network that a job made robust.
            "dense": ["after", "difference_from_dense"],
            "difference_from_dense": ["dense"],
        },
        "$defs": _definitions(),
    }


def _report() -> dict[str, Schema]:
    return {
        "version": {"const": REPORT_VERSION},
        "method": _TEXT,
        "architecture": _TEXT,
        "num_classes": {"type": "integer", "minimum": 2},
        "normalization": _object({"mean": _list(_NUMBER), "std": _list(_NUMBER)}),
        "start": _object(
            {
                "job_id": _or_null(_TEXT),
                "sha256": _DIGEST,
                **dict.fromkeys(("k", "nonzeros", "bits"), _COUNT),
            }
        )
        | {"description": "the denser network that compression started from, where it did"},
        "reused": _list(_object({"stage": _TEXT, "job_id": _TEXT, "seconds": _NUMBER}))
        | {
            "description": "stages that another job had done, and the seconds that they took "
            "there, which are not in the headline's"
        },
        "headline": {"$ref": "#/$defs/headline"},
        "acceptance": _object(
            {
                "accepted": _or_null(_FLAG) | {"description": "null without thresholds"},
                "thresholds": _list({"$ref": "#/$defs/threshold"}),
            }
        ),
        "before": {"$ref": "#/$defs/side"},
        "dense": {"$ref": "#/$defs/side"}
        | {"description": "the dense network that the job made robust, and then compressed"},
        "after": {"$ref": "#/$defs/side"},
        "difference": _differences("after minus before"),
        "difference_from_dense": _differences("after minus dense: what compression cost"),
        "warnings": _list({"$ref": "#/$defs/check"}) | {"description": "the checks raised"},
        "checks": _list({"$ref": "#/$defs/check"}),
        "evaluation": _evaluation(),
        "examples": _list({"$ref": "#/$defs/example"}),
        "layers": _list({"$ref": "#/$defs/layer"}),
        "training": _training(),
        "speed": _speed(),
        "int8": _int8(),
        "files": _list(_object({"name": _TEXT, "bytes": _COUNT, "sha256": _DIGEST}))
        | {"description": "the artifact and its exports; empty if nothing was compressed"},
        "images": _object(dict.fromkeys(("train", "val", "test"), _COUNT))
        | {"description": "images in each split, before any choice"},
        "inputs": _inputs(),
        "spec": {"type": "object", "description": "the job's spec, defaults filled in"},
        "environment": {"type": "object", "description": "device, threads and versions"},
    }


def _differences(what: str) -> Schema:
    return {
        "type": "object",
        "description": f"{what}: clean, for each attack, and the worst case",
        "required": ["clean", "robust"],
        "additionalProperties": {"$ref": "#/$defs/difference"},
    }


def _inputs() -> Schema:
    note = _object({"code": {"type": "string"}, "message": {"type": "string"}})
    return _object({"class_names": _list({"type": "string"}), "notes": _list(note)}) | {
        "description": "the names of the classes, by label, where the data set has them, and what "
        "was changed or cut on the way in: a split that was not there, a softmax that was dropped"
    }


def _training() -> Schema:
    accuracies = ("clean_accuracy", "robust_accuracy", "robust_accuracy_at_twice")
    upload = _object(
        {"images": _COUNT, **dict.fromkeys(accuracies, _SHARE), "robust": _FLAG},
    )
    return {
        "type": "object",
        "description": "the values that training used: given, by default, or chosen by the job",
        "required": ["preset", "robust_epochs", "compression_epochs", "finish_epochs", "upload"],
        "properties": {
            "preset": {"enum": list(get_args(Preset))},
            **dict.fromkeys(EPOCHS, _COUNT),
            "step_size": _NUMBER,
            "seconds_per_epoch": _or_null(_NUMBER)
            | {"description": "as measured before training, where there is a time budget"},
            "upload": _or_null(upload)
            | {
                "description": "validation accuracies of the upload, by which robust training is "
                "skipped; null where the job did not ask"
            },
        },
    }


def _speed() -> Schema:
    latency = {
        "network": {"enum": ["before", "after", "int8", "c"]},
        "batch": _COUNT,
        "threads": _COUNT,
        "median_s": _NUMBER,
        "p95_s": _NUMBER,
        "runs": _COUNT,
    }
    memory = {name: _or_null(_COUNT) for name in ("before", "after", "int8")}
    counts = {"before": _COUNT, "after": _or_null(_COUNT), "nonzero": _or_null(_COUNT)}
    measured = _object(
        {
            "threads": _COUNT | {"description": "all that the job may use"},
            "latency": _list(_object(latency)),
            "multiply_adds": _object(counts)
            | {"description": "of convolutions and linear layers, for one image"},
            "peak_memory_bytes": _object(memory, optional=tuple(memory))
            | {"description": "of a fresh process that runs a batch of 32 on one thread"},
            "not_measured": {"type": "object", "additionalProperties": _TEXT}
            | {"description": "why a network was not timed, by its name"},
            "note": _TEXT,
        }
    )
    return _or_null(measured) | {
        "description": "measured where the job ran, all networks in turns: in onnxruntime, and "
        "model.c on one core; null where the spec leaves it out"
    }


def _int8() -> Schema:
    refer = {"$ref": "#/$defs/share"}
    names = ("clean", "transferred", "square", "robust", "float_clean", "float_robust")
    counts = dict.fromkeys(("fallen", "square_queries", "bytes"), _COUNT)
    figures = _object(dict.fromkeys(names, refer) | counts)
    described = {
        "description": "on the same images for both networks: transferred are those that PGD made "
        "against the float network, so robust is an upper bound; fallen are the images on which "
        "the float network stands and this one does not; null if there is no such network"
    }
    return _or_null(
        _object(
            {
                "offered": _FLAG,
                "reason": _TEXT | {"description": "why it is not offered; empty if it is"},
                "limit": _SHARE | {"description": "of what it may lose"},
                "figures": _or_null(figures) | described,
            }
        )
    ) | {"description": "of model.int8.onnx; null if the spec does not ask for it"}


def _evaluation() -> Schema:
    return _object(
        {
            "level": {"enum": list(get_args(Level))},
            "split": {"enum": list(get_args(EvaluatedSplit))},
            "seed": _COUNT,
            "norm": {"enum": list(get_args(Norm))},
            "epsilon": _NUMBER,
            "attacks": _list({"enum": list(get_args(AttackName))}),
            "pgd_steps": _COUNT,
            "pgd_restarts": _COUNT,
            "curve_steps": _COUNT,
            "curve_images": _COUNT,
            "probe_images": _COUNT,
            "confidence": _SHARE,
            "data_sha256": _DIGEST | {"description": "of the evaluated images and labels"},
            "indices": _list(_COUNT) | {"description": "the evaluated images in the split"},
        }
    )


def _definitions() -> dict[str, Schema]:
    share = {"accuracy": _SHARE, "low": _SHARE, "high": _SHARE, "correct": _COUNT, "count": _COUNT}
    return {
        "share": _object(share),
        "headline": _headline(),
        "threshold": _object(
            {
                "name": _TEXT,
                "bound": {"enum": ["at_least", "at_most"]},
                "limit": _NUMBER,
                "figure": _NUMBER,
                "low": _NUMBER,
                "high": _NUMBER,
                "passed": _FLAG,
                "decided": _FLAG
                | {"description": "whether the whole interval lies on the verdict's side"},
            }
        ),
        "side": _side(),
        "proven": _proven(),
        "attack": _object(_attack() | share),
        "point": _object({"epsilon": _NUMBER, "epsilon_255": _NUMBER} | share),
        "difference": _object(
            {
                "value": _CHANGE,
                "low": _CHANGE,
                "high": _CHANGE,
                **dict.fromkeys(("both", "only_before", "only_after", "neither"), _COUNT),
                "mcnemar_exact_p": _SHARE,
                "mcnemar_mid_p": _SHARE,
            }
        )
        | {"description": "with Newcombe's paired 95 % interval"},
        "check": _object(
            {
                "side": {"enum": ["before", "dense", "after", "data"]},
                "code": _TEXT,
                "status": {"enum": ["raised", "passed", "not_run"]},
                "message": _TEXT,
                "figures": {"type": "object"},
            }
        ),
        "example": _example(),
        "layer": _layer(),
    }


def _headline() -> Schema:
    names = ("clean", "fgsm", "pgd", "robust", "proven")
    accuracies = [f"{name}_accuracy" for name in names]
    before = {f"{name}_before": _or_null(_SHARE) for name in accuracies}
    dense, after = (
        {f"{name}_{when}": _or_null(_SHARE) for name in accuracies} for when in ("dense", "after")
    )
    nonzeros = ("k", "nonzeros", "nonzeros_u", "nonzeros_v", "nonzeros_c")
    counts = (*nonzeros, "bits", "max_distinct_values", "dense_bytes", "file_bytes")
    sizes = dict.fromkeys(counts, _COUNT) | dict.fromkeys(("file_ratio", "nominal_ratio"), _NUMBER)
    always = {"seconds": _NUMBER, "accepted": _or_null(_FLAG)}
    one = {"description": "median of one image on one thread"}
    always["latency_before_s"] = _or_null(_NUMBER) | one
    always["multiply_adds_before"] = _or_null(_COUNT)
    after |= {f"latency_{name}_s": _or_null(_NUMBER) | one for name in ("after", "c")}
    after |= {f"multiply_adds_{name}": _or_null(_COUNT) for name in ("after", "nonzero")}
    ends = _object(dict.fromkeys(("accuracy", "low", "high"), _SHARE))
    after["intervals_after"] = {
        "type": "object",
        "additionalProperties": ends,
        "description": "clean, robust (right under every attack) and each attack by its name, with "
        "95 % intervals",
    }
    return _object(before | always | dense | after | sizes, optional=(*dense, *after, *sizes))


def _side() -> Schema:
    refer = {"$ref": "#/$defs/share"}
    return _object(
        {
            "process": {"enum": ["job", "fresh"]}
            | {"description": "fresh: decoded from its file and evaluated in a new process"},
            "sha256": _DIGEST | {"description": "of the model's file"},
            "clean": refer,
            "robust": refer
            | {"description": "right when clean and under every attack within epsilon"},
            "attacks": _list({"$ref": "#/$defs/attack"}),
            "per_class": _list(_object({"class": _TEXT, "clean": refer, "robust": refer})),
            "curve": _list({"$ref": "#/$defs/point"}) | {"minItems": MIN_CURVE_POINTS},
            "proven": {
                "anyOf": [{"$ref": "#/$defs/proven"}, {"type": "null"}],
                "description": "null if nothing was to be proven",
            },
        }
    )


def _proven() -> Schema:
    return _object(
        {
            "method": {"enum": list(get_args(Certify))},
            "reason": _TEXT | {"description": "why nothing can be proven; empty if it can"},
            "share": {"anyOf": [{"$ref": "#/$defs/share"}, {"type": "null"}]}
            | {"description": "of the evaluated images: no point of their balls is misclassified"},
            "bounds": _object(dict.fromkeys(BOUNDS, _COUNT))
            | {"description": "the images that each bound proved, in the order of trying"},
            "tried": _COUNT | {"description": "images that stood under every attack"},
            "seconds": _NUMBER,
            "curve": _list({"$ref": "#/$defs/point"}),
        }
    )


def _attack() -> dict[str, Schema]:
    sizes = ("mean", "largest", "mean_255", "largest_255")
    passes = {"type": "integer", "minimum": 0, "description": "images passed through the model"}
    return {
        "name": {"enum": list(get_args(AttackName))},
        "norm": {"enum": list(get_args(Norm))},
        "settings": {"type": "object", "additionalProperties": _NUMBER},
        "within_threat": _FLAG
        | {"description": "keeps to the threat's norm and epsilon, and counts for robust"},
        "member": _FLAG
        | {
            "description": "one of AutoAttack's four: its accuracy is that after it and the ones "
            "before it, and it attacked only what these had left"
        },
        "epsilon": _or_null(_NUMBER),
        "attacked": _COUNT,
        "changed": _COUNT,
        "perturbation": _object(dict.fromkeys(sizes, _or_null(_NUMBER)))
        | {"description": "over the changed images, in the threat's norm; null if there are none"},
        "seconds": _NUMBER,
        "forward_passes": passes,
        "backward_passes": passes,
    }


def _example() -> Schema:
    answers = _object(
        {
            "predicted": _COUNT,
            "attack": {"enum": list(get_args(AttackName))},
            "fooled": _FLAG,
            "attacked_predicted": _COUNT,
            "attacked_image": _PNG,
        },
        optional=("attack", "fooled", "attacked_predicted", "attacked_image"),
    )
    fields = {"index": _COUNT, "label": _COUNT, "image": _PNG}
    sides = dict.fromkeys(("before", "dense", "after"), answers)
    return _object(fields | sides, optional=("dense", "after"))


def _layer() -> Schema:
    factors = _object(dict.fromkeys("uvc", _COUNT))
    return _object(
        {
            "weight": _TEXT,
            "shape": _list(_COUNT),
            "groups": _COUNT,
            "weights": _COUNT,
            "nonzeros": factors,
            "distinct_values": factors,
        }
    )


def _object(properties: dict[str, Schema], optional: tuple[str, ...] = ()) -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": [name for name in properties if name not in optional],
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _or_null(of: Schema) -> Schema:
    return of | {"type": [of["type"], "null"]}
