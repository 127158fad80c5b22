"""`atmc submit`: send a model and follow its compression."""

from typing import Any

import click

from atmc_client.cli.describing import described
from atmc_client.cli.gate import MISSED, ThresholdType, strict_option
from atmc_client.cli.inputs import FileOrId, Inputs, with_inputs
from atmc_client.cli.output import print_job, print_json
from atmc_client.cli.progress import bytes_shown, follow
from atmc_client.cli.spec import build_spec
from atmc_client.client import Client
from atmc_client.gate import Threshold, accepted
from atmc_client.types.answers import Job

# Options that say how small, one of which is given.
_SIZES = ("density", "k", "nominal_ratio", "max_bytes", "macs")
# Options that are one field of the spec each.
_PATHS = {
    "method": "method",
    "bits": "target.bits",
    "structure": "target.structure",
    "norm": "threat.norm",
    "epsilon": "threat.epsilon",
    "preset": "training.preset",
    "seed": "seed",
}


class NumberOrFraction(click.ParamType[float | str]):
    """A number, or text such as 8/255, which the service reads."""

    name = "float or n/n"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> float | str:
        try:
            return float(value)
        except ValueError:
            return str(value)


@click.command()
@click.option("--model", type=FileOrId(), required=True, help="State dict or ONNX.")
@click.option(
    "--data", type=FileOrId(), required=True, help=".npz, Parquet, zip or tar of folders."
)
@click.option("--spec", type=click.File(), help="The job spec as JSON; - reads standard input.")
@click.option("--density", type=float, help="Non-zeros over dense weights, above 0 to 1.")
@click.option("--k", type=int, help="Number of non-zeros, instead of --density.")
@click.option("--nominal-ratio", type=float, help="Instead: bits of non-zeros over dense ones.")
@click.option("--max-bytes", type=int, help="Instead: the file is at most that large.")
@click.option("--macs", type=float, help="Multiply-adds over dense; with --structure channel.")
@click.option("--bits", type=int, help="Bits a non-zero: 1 to 8, 16 or 32.")
@click.option(
    "--epsilon", type=NumberOrFraction(), help="Radius, for images in [0, 1]; 8/255 is one."
)
@click.option("--norm", help="Norm of that radius.  [default: linf]")
@click.option("--method", help="See `atmc methods`.  [default: atmc]")
@click.option("--structure", help="element, or channel: whole channels go.  [default: element]")
@click.option("--preset", help="fast, standard, paper or auto.  [default: standard]")
@click.option("--seed", type=int, help="The seed of every random choice.  [default: 0]")
@click.option("--set", "settings", multiple=True, metavar="PATH=VALUE", help="Any other field.")
@click.option(
    "--accept",
    multiple=True,
    type=ThresholdType("at least"),
    help="A threshold of the spec's `accept`, such as robust_accuracy=0.5: exit code 4 if missed.",
)
@strict_option
@with_inputs
@click.option("--results", metavar="URI", help="A folder on S3 for its files; `atmc connections`.")
@described
@click.option("--priority", type=int, help="Before your own with less: -100 to 100.  [default: 0]")
@click.option("--time-limit", type=float, metavar="SECONDS", help="Ends the job as failed.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Follow it to its end.")
@click.option("--json", "as_json", is_flag=True, help="Print the job as JSON.")
@click.pass_obj
def submit(
    server: str,
    /,
    model: str,
    data: str,
    results: str | None,
    time_limit: float | None,
    accept: tuple[Threshold, ...],
    strict: bool,
    wait: bool,
    as_json: bool,
    **wanted: Any,
) -> int:
    """Send a model for compression.

    What the service has already is not sent again; --model and --data may be ids of it, too, or
    s3:// and https:// URIs of what it fetches itself. Of --connection are all URIs of the command;
    what needs another one is uploaded first (`atmc upload URI --connection NAME`).

    The options make the job spec, or change the one given with --spec; `atmc methods --json` shows
    all that a spec may hold and what the service fills in.

    \b
        atmc submit --model model.safetensors --architecture lenet \\
            --data mnist.npz --density 0.01 --bits 8 --epsilon 0.3 \\
            --set training.robust_epochs=5

    Exit codes: 0 done, 1 the job did not succeed, 2 wrong usage or refused, 3 no answer; with
    --accept or --strict 4 if the job succeeded and a threshold is missed.
    """
    inputs = Inputs.of(model, data, wanted | {"results": results})
    if strict and not wait:
        raise click.UsageError("--strict judges the figures at the end: it needs --wait")
    spec = build_spec(
        wanted["spec"],
        sizes={name: wanted[name] for name in _SIZES},
        fields={path: wanted[option] for option, path in _PATHS.items()}
        | {f"accept.{each.name}": each.limit for each in accept},
        settings=wanted["settings"],
    )
    with Client(server) as client:
        with bytes_shown() as update:
            job: Job = client.submit(
                inputs.model,
                inputs.architecture,
                inputs.dataset,
                spec,
                normalization=inputs.normalization,
                results=results and {"uri": results, "connection": wanted["connection"]},
                time_limit_s=time_limit,
                **{each: wanted[each] for each in ("name", "labels", "metadata", "priority")},
                on_bytes=update,
            )
        if wait:
            job = follow(client, job)
        succeeded = job["state"] == "succeeded"
        judged = succeeded and (accept or strict)
        report = client.report(job["id"]) if judged else None
    print_json(job) if as_json else print_job(job)
    if report and not all(each.passed for each in accepted(report, strict=strict)):
        return MISSED
    return 0 if succeeded or not wait else 1
