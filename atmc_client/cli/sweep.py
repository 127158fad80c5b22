"""`atmc sweep`: many compressions of one network, or the smallest that holds a floor."""

import json
from pathlib import Path
from typing import IO, Any

import click

from atmc_client.cli.describing import labelled
from atmc_client.cli.inputs import FileOrId, Inputs, with_inputs
from atmc_client.cli.output import err, print_json
from atmc_client.cli.progress import bytes_shown, coming_back, same_service
from atmc_client.cli.several import Several, WithSeveral
from atmc_client.cli.spec import build_spec, parse_value
from atmc_client.cli.submit import NumberOrFraction
from atmc_client.cli.sweep_output import print_sweep, watching
from atmc_client.client import Client

# Options that are one field of the base spec each.
_PATHS = {
    "method": "method",
    "structure": "target.structure",
    "norm": "threat.norm",
    "epsilon": "threat.epsilon",
    "preset": "training.preset",
}
# What may be done to a sweep that is there: another command's.
_SWEEPS = ("show", "watch", "cancel", "delete")
_AXES = ("densities", "nominal_ratios", "bits", "methods", "seeds")


class ModelOrId(FileOrId):
    """A file or an id; what is a word of `atmc sweeps` is told so."""

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> str:
        if value in _SWEEPS and not Path(value).is_file():
            self.fail(f"there is no file {value!r}: perhaps `atmc sweeps {value}`", param, context)
        return super().convert(value, param, context)


class Floor(click.ParamType[dict[str, Any]]):
    """A robust accuracy from 0 to 1, of all attacks or of the one before the =."""

    name = "[attack=]accuracy"

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> dict[str, Any]:
        attack, _, number = value.rpartition("=")
        try:
            goal = {"robust_accuracy": float(number)}
        except ValueError:
            self.fail(f"{value!r} is not ATTACK=ACCURACY, such as autoattack=.5", param, context)
        return goal | ({"attack": attack} if attack else {})


def _name(text: str) -> str:
    if not text.isidentifier():
        raise ValueError(f"{text!r} is no name")
    return text


@click.command(cls=WithSeveral)
@click.argument("model", type=ModelOrId())
@click.option("--dataset", "--data", type=FileOrId(), required=True, help="Its data set.")
@click.option("--densities", cls=Several, read=float, metavar="N...", help="Non-zeros over dense.")
@click.option("--nominal-ratios", cls=Several, read=float, metavar="N...", help="Instead of those.")
@click.option("--bits", cls=Several, read=int, metavar="N...", help="Bits a non-zero.")
@click.option("--methods", cls=Several, read=_name, metavar="NAME...", help="See `atmc methods`.")
@click.option("--seeds", cls=Several, read=int, metavar="N...", help="Of every random choice.")
@click.option("--vary", multiple=True, metavar="PATH=V,V", help="Any other field of the spec.")
@click.option("--specs", type=click.File(), help="Instead: partial specs, a JSON array.")
@click.option("--floor", type=Floor(), help="Instead: robust accuracy to hold, autoattack=.5, say.")
@click.option("--minimise", help="With --floor.  [default: file_bytes]")
@click.option("--trials", type=int, help="With --floor: at most so many.  [default: 8]")
@click.option("--spec", type=click.File(), help="The base of every trial as JSON; - is stdin.")
@click.option("--epsilon", type=NumberOrFraction(), help="Radius, for images in [0, 1]; or 8/255.")
@click.option("--norm", help="Norm of that radius.  [default: linf]")
@click.option("--method", help="The one method of all trials.  [default: atmc]")
@click.option("--structure", help="element, or channel: whole channels go.  [default: element]")
@click.option("--preset", help="fast, standard, paper or auto.  [default: standard]")
@click.option("--set", "settings", multiple=True, metavar="PATH=VALUE", help="Of the base spec.")
@with_inputs
@click.option("--from-denser/--from-scratch", default=None, help="Where a trial's support starts.")
@click.option("--max-parallel", type=int, help="So many trials at once.  [default: 4]")
@click.option("--max-trials", type=int, help="A grid of more is refused.")
@click.option("--time-limit", type=float, metavar="SECONDS", help="No trial begins after that.")
@click.option("--trial-time-limit", type=float, metavar="SECONDS", help="Ends a trial as failed.")
@click.option("--name", help="A name for the sweep, for yourself.")
@labelled("Of each trial; may be repeated.")
@click.option("--priority", type=int, help="Of its trials: -100 to 100.  [default: 0]")
@click.option("--watch", is_flag=True, help="Follow it to its end: table and figure, live.")
@click.option("--json", "as_json", is_flag=True, help="Print the sweep as JSON.")
@click.pass_obj
def sweep(server: str, /, model: str, dataset: str, watch: bool, as_json: bool, **o: Any) -> int:
    """Compress MODEL in many ways, and see which are worth their bytes.

    MODEL is a file, its URI, or the id of an uploaded one. Every combination of the values is a
    trial, a job of its own; several values stand one after the other. With --floor the service
    seeks the smallest file that holds a robust accuracy, and chooses size and bits itself.

    \b
        atmc sweep model.safetensors --architecture lenet --dataset mnist.npz \\
            --epsilon 0.3 --densities .1 .05 .01 --bits 8 4 --watch
        atmc sweep model.safetensors --architecture lenet --dataset mnist.npz \\
            --epsilon 0.3 --floor autoattack=.5 --watch

    Exit codes with --watch: 0 the sweep succeeded, 1 it did not; an answer to a floor that nothing
    holds is the best that was found, with 0.
    """
    inputs = Inputs.of(model, dataset, o)
    fields = {path: o[option] for option, path in _PATHS.items()}
    spec = build_spec(o["spec"], sizes={}, fields=fields, settings=o["settings"])
    with Client(server) as client:
        with bytes_shown() as update:
            started = client.sweep(
                inputs.model,
                inputs.dataset,
                spec,
                architecture=inputs.architecture,
                normalization=inputs.normalization,
                **_plan(o),
                **{name: o[name] for name in ("from_denser", "max_parallel", "max_trials")},
                time_limit_s=o["time_limit"],
                trial_time_limit_s=o["trial_time_limit"],
                name=o["name"],
                labels=o["labels"],
                priority=o["priority"],
                on_bytes=update,
            )
        if watch:
            err.print(f"{started['id']} accepted by {client.url}")
            return watch_to_end(client, started["id"], as_json)
    print_json(started) if as_json else print_sweep(started)
    err.print(f"to follow it: {same_service('sweeps watch')} {started['id']}", soft_wrap=True)
    return 0


def watch_to_end(client: Client, sweep_id: str, as_json: bool) -> int:
    """Show the sweep live until it has ended, then print it; returns the exit code."""
    with (
        coming_back("sweep", sweep_id, "sweeps watch", "sweeps cancel"),
        watching(sweep_id) as update,
    ):
        ended = client.wait_sweep(sweep_id, on_update=update)
    print_json(ended) if as_json else print_sweep(ended)
    return 0 if ended["state"] == "succeeded" else 1


def _plan(o: dict[str, Any]) -> dict[str, Any]:
    """The grid, the specs or the goal that the options name; raises UsageError unless it is one."""
    grid = {name: o[name] for name in _AXES if o[name] is not None}
    if o["vary"]:
        grid["fields"] = dict(map(_axis, o["vary"]))
    plans = {"grid": grid or None, "specs": _specs(o["specs"]), "goal": o["floor"]}
    given = [name for name, plan in plans.items() if plan is not None]
    if not given:
        raise click.UsageError(
            "nothing to try: give values (--densities .1 .05 --bits 8 4), --specs or --floor"
        )
    if len(given) > 1:
        raise click.UsageError(
            "values of a grid, --specs and --floor exclude each other; "
            "a field that all trials have in common goes into --set PATH=VALUE"
        )
    if o["floor"] is None and (o["trials"] is not None or o["minimise"] is not None):
        raise click.UsageError("--trials and --minimise go with --floor")
    return plans | {"trials": o["trials"], "minimise": o["minimise"]}


def _axis(text: str) -> tuple[str, list[Any]]:
    path, equals, values = text.partition("=")
    if not equals or not values or not all(path.split(".")):
        raise click.BadParameter(f"{text!r} is not PATH=VALUE,VALUE", param_hint="--vary")
    return path, [parse_value(value) for value in values.split(",")]


def _specs(file: IO[str] | None) -> list[Any] | None:
    if file is None:
        return None
    try:
        specs = json.load(file)
    except json.JSONDecodeError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="--specs") from error
    if not isinstance(specs, list):
        raise click.BadParameter("not a JSON array", param_hint="--specs")
    return specs
