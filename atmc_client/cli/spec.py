"""The job spec as a file, as options, or as a file that options override."""

import json
from collections.abc import Mapping, Sequence
from typing import IO, Any

import click

Spec = dict[str, Any]


def build_spec(
    file: IO[str] | None,
    *,
    sizes: Mapping[str, float | None],
    fields: Mapping[str, Any],
    settings: Sequence[str],
) -> Spec:
    """Return the spec in `file` (None: ATMC in the l-infinity norm) with the options put over it.

    `sizes` are the ways to say how small, by name, and `fields` values by path, None where not
    given; `settings` are `PATH=VALUE`. What a spec may hold only the service knows. Raises
    `click.UsageError` for options that contradict each other or the file's form.
    """
    spec = _read(file)
    given = {name: value for name, value in sizes.items() if value is not None}
    if len(given) > 1:
        options = " and ".join(f"--{name.replace('_', '-')}" for name in given)
        raise click.UsageError(f"{options} both say how small: give one")
    if given:
        # The file's may be of another kind.
        target = _object(spec, "target", "target")
        for name in sizes:
            target.pop(name, None)
        target.update(given)
    for path, value in fields.items():
        if value is not None:
            _assign(spec, path, value)
    for setting in settings:
        _assign(spec, *_parse(setting))
    # A method that compresses nothing takes no target, not even an empty one.
    if file is None and spec.get("target") == {}:
        del spec["target"]
    return spec


def _read(file: IO[str] | None) -> Spec:
    if file is None:
        return {"method": "atmc", "target": {}, "threat": {"norm": "linf"}}
    try:
        spec = json.load(file)
    except json.JSONDecodeError as error:
        raise click.BadParameter(f"not JSON: {error}", param_hint="--spec") from error
    if not isinstance(spec, dict):
        raise click.BadParameter("not a JSON object", param_hint="--spec")
    return spec


def _parse(setting: str) -> tuple[str, Any]:
    path, equals, value = setting.partition("=")
    if not equals or not all(path.split(".")):
        raise click.BadParameter(f"{setting!r} is not PATH=VALUE", param_hint="--set")
    return path, parse_value(value)


def parse_value(text: str) -> Any:
    """Return the JSON value that the text is, or else the text."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _assign(spec: Spec, path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        spec = _object(spec, parent, path)
    spec[last] = value


def _object(place: Spec, name: str, path: str) -> Spec:
    inner = place.setdefault(name, {})
    if not isinstance(inner, dict):
        raise click.BadParameter(f"{path}: {name} is not an object")
    return inner
