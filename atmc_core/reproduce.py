"""`python -m atmc_core.reproduce REPORT MODEL --data FILE`: get a report's figures again.

MODEL is what the report judges: the uploaded state dict, the compressed `model.atmc`, or the dense
robust network that was compressed, `dense.atmc`. The
images, attacks and seeds are the report's. Exit status: 0 if every figure is the report's, 1 if one
differs, 2 for files that cannot be used, 3 if one differs on another kind of device than the
report's, which neither confirms nor refutes it: sums are rounded otherwise there, and images on the
very boundary fall to the other side. Progress goes to standard error; the table, or one JSON
object, to standard output.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atmc_core import artifact
from atmc_core.data import DataSet, Reading, Split, load_dataset
from atmc_core.determinism import compute_repeatably
from atmc_core.errors import InvalidInput
from atmc_core.evaluation.evaluator import Evaluator
from atmc_core.job.inputs import load_inputs
from atmc_core.job.methods import all_specs
from atmc_core.networks.classifier import Classifier, Normalization
from atmc_core.networks.upload import ModelInput
from atmc_core.report import REPORT_VERSION
from atmc_core.report.checks import split_digest
from atmc_core.report.figures import side as figures_of
from atmc_core.report.headline import proven_share
from atmc_core.report.words import attack_name, percent
from atmc_spec import JobSpec, read_spec

Report = dict[str, Any]

#: The exit status if figures differ but the device is not of the report's kind.
OTHER_DEVICE = 3


def main() -> int:
    """Run the command line; returns the exit status (see the module's docstring)."""
    parser = argparse.ArgumentParser(
        prog="python -m atmc_core.reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("report", type=Path, help="report.json of a job")
    parser.add_argument("model", type=Path, help="the uploaded model, or the job's model.atmc")
    parser.add_argument("--data", type=Path, required=True, help="the job's data set (.npz)")
    parser.add_argument("--device", default="cpu", help="cpu (the default) or cuda")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    try:
        result = repeat(
            read_report(arguments.report),
            arguments.model,
            arguments.data,
            torch.device(arguments.device),
        )
    except (InvalidInput, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result, indent=2) if arguments.json else table(result))
    if not result["differences"]:
        return 0
    return 1 if result["same_device"] else OTHER_DEVICE


def read_report(path: Path) -> Report:
    """Read ``report.json``.

    Raises:
        InvalidInput: ``malformed_report`` if the file is no report, or one of another version.
        OSError: if the file cannot be read.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        version = report["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput("malformed_report", f"{path} is no report: {error}") from error
    if version != REPORT_VERSION:
        raise InvalidInput(
            "malformed_report",
            f"the report is of version {version}; this release reads {REPORT_VERSION}",
        )
    return report  # type: ignore[no-any-return]


def repeat(report: Report, model: Path, data: Path, device: torch.device) -> dict[str, Any]:
    """Evaluate ``model`` as the report says, and compare the figures.

    Args:
        report: a report of this version, as ``read_report`` returns it.
        model: the model's file: a state dict, or a ``.atmc`` artifact.
        data: the data set's file.
        device: the device to evaluate on.

    Returns:
        ``side``, the side of the report that the model belongs to (``before``,
        ``dense`` or ``after``);
        ``same_file``, whether the file's bytes are those that were judged; ``same_device``, whether
        the device is of the report's kind; ``figures``, what was found; ``differences``, each with
        the name of its ``figure``, what was ``reported`` and what was ``found``.

    Raises:
        InvalidInput: if model, data and report do not belong together.
    """
    # The number of threads decides the order of sums, and so their last digits.
    torch.set_num_threads(report["environment"]["threads"])
    compute_repeatably(device.type == "cpu")
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    side = _side_of(report, model, digest)
    spec = _relevant_spec(report, side)
    classifier, split = _load(report, spec, model, data)
    evaluator = Evaluator(
        classifier.to(device),
        split.to(device),
        spec.threat,
        spec.evaluation,
        report["num_classes"],
        report["evaluation"]["seed"],
    )
    for index, portion in enumerate(evaluator.portions):
        evaluator.run_portion(index)
        what = " ".join(filter(None, [portion.kind, portion.name, str(portion.index + 1)]))
        print(f"[{index + 1}/{len(evaluator.portions)}] {what}", file=sys.stderr, flush=True)
    found = figures_of(evaluator.state(), split.labels, report["num_classes"], spec.threat)
    return {
        "side": side,
        "same_file": digest == report[side]["sha256"],
        "same_device": device.type == report["environment"]["device"],
        "figures": found,
        "differences": differences(report[side], found),
    }


def _side_of(report: Report, model: Path, digest: str) -> str:
    """The side of the report that a file belongs to."""
    if model.suffix != ".atmc":
        return "before"
    if "after" not in report:
        raise InvalidInput("malformed_report", "the report has no compressed side", "model")
    return "dense" if report.get("dense", {}).get("sha256") == digest else "after"


def _relevant_spec(report: Report, side: str) -> JobSpec:
    """The report's spec without the training settings, on which the evaluation does not depend.

    They are left out because this release may have other rules for them and refuse them. The
    attacks and the bounds are those that ran: this release may add others to the level.
    """
    fraction = report["spec"]["training"]["validation_fraction"]
    ran = [attack["name"] for attack in report["before"]["attacks"] if not attack["member"]]
    # Reports of before say nothing of proofs.
    proven = report.get(side, {}).get("proven")
    asked = report["spec"] | {
        "training": {"validation_fraction": fraction},
        "evaluation": report["spec"]["evaluation"]
        | {"attacks": ran, "certify": proven["method"] if proven else "none"},
    }
    return read_spec(asked, all_specs())


def _load(report: Report, spec: JobSpec, path: Path, data: Path) -> tuple[Classifier, Split]:
    """Load the model; returns it and the images that were evaluated."""
    if path.suffix == ".atmc":
        model = artifact.load(path)
        if (model.architecture, model.num_classes) != (
            report["architecture"],
            report["num_classes"],
        ):
            raise InvalidInput(
                "tensor_mismatch", f"the artifact is a {model.architecture} of another job", "model"
            )
        shape = model.blueprint.input_shape
        fraction = spec.training.validation_fraction
        images = load_dataset(data, fraction, spec.seed, Reading(shape[0]))
        return model.classifier(), _evaluated(report, images)
    means, stds = (tuple(report["normalization"][name]) for name in ("mean", "std"))
    given = ModelInput(path, report["architecture"], Normalization(means, stds))
    loaded, found = load_inputs(given, data, spec, Reading())
    if loaded.blueprint.num_classes != report["num_classes"]:
        raise InvalidInput(
            "tensor_mismatch", f"the model has {loaded.blueprint.num_classes} classes", "model"
        )
    return loaded.classifier(given.normalization), _evaluated(report, found)


def _evaluated(report: Report, data: DataSet) -> Split:
    """The images that the report evaluated, out of their split.

    Raises:
        InvalidInput: ``other_data`` if the split does not contain them.
    """
    index: Tensor = torch.tensor(report["evaluation"]["indices"])
    # Reports of before say nothing of a split: all were on test images.
    name = report["evaluation"].get("split", "test")
    whole = data.evaluated(name)
    if int(index.max()) < len(whole):
        split = whole.select(index)
        if split_digest(split) == report["evaluation"]["data_sha256"]:
            return split
    raise InvalidInput(
        "other_data", f"the {name} split does not hold the images of the report", "data"
    )


def differences(reported: dict[str, Any], found: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures that differ, be it in the last digit; times and numbers of passes are ignored.

    Args:
        reported: one side of the report.
        found: the same side as ``report.figures.side`` makes it now.

    Returns:
        For each different figure: the name of the ``figure``, ``reported`` and ``found``, in the
        order of the names. A figure that one of the two lacks is None there.
    """
    before, after = _figures_by_name(reported), _figures_by_name(found)
    return [
        {"figure": name, "reported": before.get(name), "found": after.get(name)}
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _figures_by_name(side: dict[str, Any]) -> dict[str, Any]:
    """The figures that have to be reproduced, by name."""
    figures = {name: side[name]["correct"] for name in ("clean", "robust")}
    for attack in side["attacks"]:
        figures[attack["name"]] = attack["correct"]
        figures |= {
            f"{attack['name']}.{end}": attack["perturbation"][end] for end in ("mean", "largest")
        }
    for entry in side["per_class"]:
        figures |= {
            f"class {entry['class']}.{name}": entry[name]["correct"] for name in ("clean", "robust")
        }
    figures |= {f"curve {point['epsilon']:.6g}": point["correct"] for point in side["curve"]}
    if (proven := side.get("proven")) and proven["share"]:
        figures["proven"] = proven["share"]["correct"]
        figures |= {f"proven by {name}": count for name, count in proven["bounds"].items()}
        figures |= {
            f"proven curve {point['epsilon']:.6g}": point["correct"] for point in proven["curve"]
        }
    return figures


def table(result: dict[str, Any]) -> str:
    """The result of ``repeat`` as text for people."""
    found = result["figures"]
    rows = [("clean images", found["clean"])]
    rows += [(attack_name(attack["name"]), attack) for attack in found["attacks"]]
    rows.append(("worst case", found["robust"]))
    if share := proven_share(found):
        rows.append(("proven", share))
    lines = [
        f"{label:24} {share['correct']:>7,} of {share['count']:,}  {percent(share['accuracy'], 2)}"
        for label, share in rows
    ]
    if not result["same_file"]:
        lines.append("The model's file is not, byte for byte, the one that was judged.")
    if not result["same_device"]:
        lines.append("The report was made on another kind of device: figures may differ a little.")
    if not result["differences"]:
        return "\n".join([*lines, "Every figure is the report's."])
    lines.append("These figures are not the report's:")
    lines += [
        f"  {each['figure']}: reported {each['reported']}, found {each['found']}"
        for each in result["differences"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
