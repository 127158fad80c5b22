"""``model_card.md``: a README for the model, with the metadata that Hugging Face's hub reads.

The metadata are YAML. Their values are written as JSON, which is valid YAML.
"""

import json
from typing import Any

from atmc_core.report import words
from atmc_core.report.headline import proven_share
from atmc_core.report.svg import SIDES

Report = dict[str, Any]


def render(report: Report) -> str:
    """The card, as Markdown, of the compressed model, or of the uploaded one if there is none."""
    compressed = "after" in report
    result = report["after" if compressed else "before"]
    parts = [_metadata(report, result), *_opening(report, compressed), *_figures(report)]
    if compressed:
        parts += _sizes(report["headline"])
    parts += _speed(report["speed"])
    if report["int8"]:
        parts += ["## In int8", "", words.int8_note(report["int8"]), ""]
    parts += _warnings(report)
    parts += _again(compressed)
    return "\n".join(parts) + "\n"


def _threat(report: Report) -> str:
    evaluation = report["evaluation"]
    return (
        f"{words.NORMS[evaluation['norm']]} perturbations up to epsilon "
        f"{evaluation['epsilon']:.4g} ({255 * evaluation['epsilon']:.3g}/255)"
    )


def _metadata(report: Report, result: dict[str, Any]) -> str:
    name = f"{report['architecture']}-{report['method']}"
    metrics = [
        ("Clean accuracy", result["clean"]["accuracy"]),
        (f"Robust accuracy, {_threat(report)}", result["robust"]["accuracy"]),
    ]
    if share := proven_share(result):
        metrics.append((f"Proven accuracy, {_threat(report)}", share["accuracy"]))
    digest = report["evaluation"]["data_sha256"]
    split = report["evaluation"]["split"]
    dataset = {"name": f"the job's {split} images", "type": "image-folder", "revision": digest}
    results = {
        "task": {"type": "image-classification"},
        "dataset": dataset,
        "metrics": [
            {"type": "accuracy", "name": label, "value": value} for label, value in metrics
        ],
    }
    tags = ["adversarial-robustness"]
    if "after" in report:
        tags += ["model-compression", "pruning", "quantization"]
    fields = {
        "library_name": "pytorch",
        "pipeline_tag": "image-classification",
        "tags": tags,
        "metrics": ["accuracy"],
        "model-index": [{"name": name, "results": [results]}],
    }
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items()]
    return "\n".join(["---", *lines, "---", ""])


def _opening(report: Report, compressed: bool) -> list[str]:
    what = (
        f"compressed by method `{report['method']}`" if compressed else "as uploaded, uncompressed"
    )
    accepted = report["acceptance"]["accepted"]
    verdict = {
        True: "It meets every threshold that its job named.",
        False: "**It misses a threshold that its job named.**",
        None: "Its job named no thresholds to hold it against.",
    }[accepted]
    return [
        f"# {report['architecture']}, {report['method']}",
        "",
        (
            f"An image classifier of {report['num_classes']} classes, architecture "
            f"`{report['architecture']}`, {what}. {verdict}"
        ),
        "",
        "## Intended use",
        "",
        (
            "Classification of images like those it was evaluated on, also where somebody may have "
            f"perturbed them: {_threat(report)}. Other perturbations were not tried."
        ),
        "",
    ]


def _figures(report: Report) -> list[str]:
    sides = [side for side in SIDES if side in report]
    header = ["under", *(f"{SIDES[side][1]} (95 % interval)" for side in sides)]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]

    def row(label: str, shares: list[dict[str, Any]]) -> str:
        cells = [
            f"{words.percent(share['accuracy'])} ({words.interval(share)})" for share in shares
        ]
        return "| " + " | ".join([label, *cells]) + " |"

    lines.append(row("clean images", [report[side]["clean"] for side in sides]))
    for index, attack in enumerate(report["before"]["attacks"]):
        label = words.attack_name(attack["name"])
        lines.append(row(label, [report[side]["attacks"][index] for side in sides]))
    lines.append(row("worst case of each image", [report[side]["robust"] for side in sides]))
    proven = [share for side in sides if (share := proven_share(report[side]))]
    if len(proven) == len(sides):
        lines.append(row("proven", proven))
    count, evaluation = report["before"]["clean"]["count"], report["evaluation"]
    split, level = evaluation["split"], evaluation["level"]
    return [
        "## Evaluation",
        "",
        f"On {count:,} {split} images, level `{level}`, {_threat(report)}.",
        "",
        *lines,
        "",
    ]


def _sizes(headline: dict[str, Any]) -> list[str]:
    return [
        "## Size",
        "",
        (
            f"{headline['file_bytes']:,} bytes, {words.percent(headline['file_ratio'], 2)} of the "
            f"dense float32 file; {headline['nonzeros']:,} non-zeros of {headline['bits']} bits."
        ),
        "",
    ]


def _speed(speed: dict[str, Any] | None) -> list[str]:
    if speed is None:
        return []
    rows = [
        f"| {words.SPEED[each['network']]} | {each['batch']} | {each['threads']} | "
        f"{words.milliseconds(each['median_s'])} | {words.milliseconds(each['p95_s'])} |"
        for each in speed["latency"]
    ]
    header = ["| network | images | threads | median | 95th percentile |", "|---|---|---|---|---|"]
    return ["## Speed", "", speed["note"], "", *([*header, *rows, ""] if rows else [])]


def _warnings(report: Report) -> list[str]:
    of = {side: f"{name} model" for side, (_, name) in SIDES.items()} | {"data": "evaluation"}
    found = [f"- `{w['code']}` ({of[w['side']]}): {w['message']}" for w in report["warnings"]]
    return ["## Limitations", "", *(found or ["No check of the report raised a warning."]), ""]


def _again(compressed: bool) -> list[str]:
    model = "model.atmc" if compressed else "MODEL"
    return [
        "## The same figures again",
        "",
        "```",
        f"python -m atmc_core.reproduce report.json {model} --data FILE",
        "```",
    ]
