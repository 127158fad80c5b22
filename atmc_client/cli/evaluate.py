"""`atmc evaluate`: how robust a network is, with nothing compressed."""

from typing import Any

import click

from atmc_client import gate as gates
from atmc_client.cli.describing import described
from atmc_client.cli.inputs import FileOrId, Inputs, with_inputs
from atmc_client.cli.output import new_table, out, print_job, print_json
from atmc_client.cli.progress import bytes_shown, follow
from atmc_client.cli.spec import build_spec
from atmc_client.cli.submit import NumberOrFraction
from atmc_client.client import Client, Document
from atmc_client.types.answers import Job

# What RobustBench holds networks of small colour images to.
_EPSILONS: dict[str, float | str] = {"linf": "8/255", "l2": 0.5}
_SIDE = "_accuracy_before"


@click.command()
@click.argument("model", type=FileOrId())
@click.option("--data", type=FileOrId(), required=True, help="Its data set.")
@click.option(
    "--attack", "attacks", multiple=True, help="Instead of the level's; see `atmc attacks`."
)
@click.option("--level", help="quick, standard or full.  [default: standard, with AutoAttack]")
@click.option("--norm", help="linf or l2.", default="linf", show_default=True)
@click.option(
    "--epsilon",
    type=NumberOrFraction(),
    help="Radius, for images in [0, 1].  [default: 8/255 in linf, 0.5 in l2]",
)
@click.option("--images", type=int, help="So many of the split at most.  [default: the level's]")
@click.option("--split", help="test or validation.  [default: test]")
@click.option("--seed", type=int, help="The seed of every random choice.  [default: 0]")
@click.option("--set", "settings", multiple=True, metavar="PATH=VALUE", help="Any other field.")
@with_inputs
@described
@click.option("--wait/--no-wait", default=True, show_default=True, help="Follow it to its end.")
@click.option("--json", "as_json", is_flag=True, help="Print report.json (the job, if it failed).")
@click.pass_obj
def evaluate(server: str, /, model: str, data: str, wait: bool, as_json: bool, **o: Any) -> int:
    """Measure a network's accuracy, clean and under attack; nothing is compressed.

    MODEL is a file, its URI, or the id of an uploaded one. The service does it as a job, whose
    report is kept (`atmc report JOB --open`).

    \b
        atmc evaluate model.safetensors --architecture lenet --data mnist.npz --epsilon 0.3
        atmc evaluate model.onnx --architecture onnx --data images.zip --attack pgd --attack square

    Exit codes: 0 done, 1 the job did not succeed, 2 wrong usage or refused, 3 no answer.
    """
    inputs = Inputs.of(model, data, o)
    spec = build_spec(None, sizes={}, fields=_fields(o), settings=o["settings"])
    with Client(server) as client:
        with bytes_shown() as update:
            job: Job = client.submit(
                inputs.model,
                inputs.architecture,
                inputs.dataset,
                spec,
                normalization=inputs.normalization,
                **{each: o[each] for each in ("name", "labels", "metadata")},
                on_bytes=update,
            )
        if wait:
            job = follow(client, job)
        report = client.report(job["id"]) if job["state"] == "succeeded" else None
    if report is None:
        print_json(job) if as_json else print_job(job)
        return 1 if wait else 0
    print_json(report) if as_json else _print(job, report)
    return 0


def _fields(o: dict[str, Any]) -> dict[str, Any]:
    epsilon = o["epsilon"]
    if epsilon is None and o["norm"] not in _EPSILONS:
        raise click.UsageError(f"--epsilon is needed: norm {o['norm']} has no usual one")
    level = o["level"] or (None if o["attacks"] else "standard")
    return {
        "method": "evaluate",
        "threat.norm": o["norm"],
        "threat.epsilon": _EPSILONS[o["norm"]] if epsilon is None else epsilon,
        "evaluation.level": level,
        "evaluation.attacks": list(o["attacks"]) or None,
        "evaluation.max_images": o["images"],
        "evaluation.split": o["split"],
        "seed": o["seed"],
    }


def _print(job: Document, report: Document) -> None:
    threat, split = job["spec"]["threat"], report["evaluation"].get("split", "test")
    out.print(f"{job['id']}: {threat['norm']}, epsilon {threat['epsilon']}", markup=False)
    table = new_table(f"{split} split")
    for column in ("accuracy", "95 % interval"):
        table.add_column(column, justify="right")
    for name, figure in _accuracies(job, report).items():
        interval = f"{100 * figure.low:.2f} to {100 * figure.high:.2f} %"
        table.add_row(_LABELS.get(name, name), f"{100 * figure.value:.2f} %", interval)
    out.print(table)
    for warning in report["warnings"]:
        out.print(f"warning ({warning['code']}): {warning['message']}", markup=False)


def _accuracies(job: Document, report: Document) -> dict[str, gates.Figure]:
    """Clean, under each attack, and at the end what no attack and what nothing at all changes."""
    figures = gates.figures(job["headline"], report)
    found = {
        name.removesuffix(_SIDE): figure for name, figure in figures.items() if name.endswith(_SIDE)
    }
    return found | {name: found.pop(name) for name in ("robust", "proven") if name in found}


_LABELS = {"robust": "under all attacks, the worst case"}
