"""The paper's table over several seeds: each system's mean worst case, and which one is ahead.

    for seed in 0 1 2; do python -m benchmarks.paper --dataset fashion_mnist --seed $seed \
        --name lenet-seed$seed --worst-images 300 ...; done
    python -m benchmarks.seeds fashion_mnist-lenet

It reads the tables ``benchmarks/results/NAME-seed*.json`` of ``benchmarks.paper``, which must agree
in all settings but the seed and have the same rows, with a worst case. It writes
``benchmarks/results/NAME-seeds.json`` and prints the table in Markdown. The interval is that of the
mean over the seeds, 95 % by Student's t. ``of_dense`` is the mean share of the dense network's
worst case that a system keeps.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy import stats

from benchmarks.table import RESULTS

_DENSE = "da"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="such as fashion_mnist-lenet")
    arguments = parser.parse_args()
    paths = sorted(RESULTS.glob(f"{arguments.name}-seed*.json"))
    paths = [path for path in paths if path.stem != f"{arguments.name}-seeds"]
    if not paths:
        parser.error(f"there is no {RESULTS / arguments.name}-seedN.json: run benchmarks.paper")
    try:
        found = joined([json.loads(path.read_text()) for path in paths])
    except ValueError as error:
        parser.error(f"{', '.join(path.name for path in paths)}: {error}")
    path = Path(RESULTS) / f"{arguments.name}-seeds.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    sys.stdout.write(markdown(found["rows"]))


def joined(tables: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join the tables of several seeds.

    Returns:
        Their common ``settings``, the ``seeds``, and one of ``rows`` for each system.

    Raises:
        ValueError: if they differ in more than the seed, a row has no worst case or is not in all.
    """
    settings = [{**table["settings"], "seed": None, "robust": None} for table in tables]
    if any(each != settings[0] for each in settings):
        raise ValueError("their settings differ in more than the seed and the dense network")
    by_name = [{row["name"]: row for row in table["rows"]} for table in tables]
    if any(each.keys() != by_name[0].keys() for each in by_name):
        raise ValueError("they do not have the same rows: finish them all")
    if any("worst_case" not in row for table in tables for row in table["rows"]):
        raise ValueError("a row has no worst case: run with --worst-images")
    dense = next((name for name, row in by_name[0].items() if row["method"] == _DENSE), None)
    rows = [
        _row([each[name] for each in by_name], [each[dense] for each in by_name] if dense else [])
        for name in by_name[0]
    ]
    compressed = [row for row in rows if row["method"] != _DENSE]
    for row in compressed:
        rivals = [each for each in compressed if each["density"] == row["density"]]
        row["ahead"] = row["worst_accuracy"] == max(each["worst_accuracy"] for each in rivals)
    seeds = [table["settings"]["seed"] for table in tables]
    return {"settings": settings[0], "seeds": seeds, "rows": rows}


def _row(runs: Sequence[dict[str, Any]], dense: Sequence[dict[str, Any]]) -> dict[str, Any]:
    worst = [_worst(run) for run in runs]
    half = 0.0
    if len(runs) > 1:
        half = float(stats.t.ppf(0.975, len(runs) - 1)) * statistics.stdev(worst)
        half /= len(runs) ** 0.5
    mean = statistics.fmean(worst)
    row = {name: runs[0][name] for name in ("name", "method", "bits", "density")}
    for figure in ("nominal_ratio", "file_bytes"):
        row[figure] = statistics.fmean(run[figure] for run in runs)
    row["clean_accuracy"] = statistics.fmean(run["worst_case"]["clean_accuracy"] for run in runs)
    row |= {"worst_accuracy": mean, "interval": [mean - half, mean + half], "worst": worst}
    if dense:
        row["of_dense"] = statistics.fmean(
            own / _worst(full) for own, full in zip(worst, dense, strict=True)
        )
    return row


def _worst(run: dict[str, Any]) -> float:
    return float(run["worst_case"]["worst_accuracy"])


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table; whoever is ahead at its density is bold."""
    lines = [
        "| system | density | bits | file | clean | worst case | of the dense |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["interval"]
        worst = f"{row['worst_accuracy']:.3f}"
        worst = f"**{worst}**" if row.get("ahead") else worst
        share = f"{row['of_dense']:.1%}" if "of_dense" in row else ""
        lines.append(
            f"| {row['method'].upper()} | {row['density']:g} | {row['bits']} "
            f"| {row['file_bytes'] / 1000:.1f} KB | {row['clean_accuracy']:.3f} "
            f"| {worst} ({low:.3f} to {high:.3f}) | {share} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
