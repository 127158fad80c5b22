"""How `atmc` finds its service: options before the environment before a profile."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from atmc_client.profiles import Profile, WrongProfile, choose, default_path, read_profiles, unknown

_GIVEN, _PROFILE = f"{__name__}.given", f"{__name__}.profile"


def apply(context: click.Context, param: click.Parameter, value: Any) -> Any:
    """The callback of --config and --profile: has click take from the profile what nobody says.

    They come in any order, so the second has the profile read.
    """
    given = context.meta.setdefault(_GIVEN, {})
    given[param.name] = value
    if not context.resilient_parsing and len(given) == 2:
        _read(context, given["config"], given["profile"])
    return value


def _read(context: click.Context, config: Path | None, name: str | None) -> None:
    path = config or default_path()
    try:
        found = choose(path, name, must_exist=config is not None)
        defaults = _defaults(context.command, found.options, root=True)
    except WrongProfile as error:
        raise click.UsageError(str(error)) from error
    own = {"server": found.server, "token_command": found.token_command, "ca": found.ca}
    context.default_map = defaults | {key: value for key, value in own.items() if value is not None}
    context.meta[_PROFILE] = found


def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """The profiles' names, for the Tab key; none if the file cannot be read."""
    try:
        names = read_profiles(context.params.get("config") or default_path())
    except (WrongProfile, OSError):
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def enter(context: click.Context) -> None:
    """Have the commands' clients show what options and profile say, until the context is closed."""
    variables = {"SSL_CERT_FILE": context.params["ca"]}
    command = context.params["token_command"]
    said = context.get_parameter_source("token_command")
    if command and said is not ParameterSource.DEFAULT_MAP:
        variables["ATMC_TOKEN_COMMAND"] = command
    elif not os.environ.get("ATMC_API_KEY"):
        variables |= _credentials(context)
    set_ = {name: str(value) for name, value in variables.items() if value is not None}
    context.with_resource(_environment(set_))


def _credentials(context: click.Context) -> dict[str, str | None]:
    profile: Profile = context.meta[_PROFILE]
    # Whoever names another server may not mean to show it this one's key.
    elsewhere = context.get_parameter_source("server") is not ParameterSource.DEFAULT_MAP
    if profile.server is not None and elsewhere and context.params["server"] != profile.server:
        return {}
    try:
        return {"ATMC_TOKEN_COMMAND": profile.token_command, "ATMC_API_KEY": profile.key()}
    except WrongProfile as error:
        raise click.UsageError(str(error)) from error


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    # Each command makes its client of the server alone, and of what the environment says.
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _defaults(
    command: click.Command,
    options: Mapping[str, Any],
    place: str = "options",
    *,
    root: bool = False,
) -> dict[str, Any]:
    """The options as click's defaults; raises `WrongProfile` for what no command has."""
    found: dict[str, Any] = {}
    parts = command.commands if isinstance(command, click.Group) else {}
    # Those of `atmc` itself are the profile's other keys.
    own = {} if root else _options(command)
    for key, value in options.items():
        inner = f"{place}.{key}"
        if key in parts and isinstance(value, dict):
            found[key] = _defaults(parts[key], value, inner)
        elif key in own:
            found[str(own[key].name)] = _value(own[key], value, inner)
        else:
            raise WrongProfile(f"{inner}: {unknown(key, [*parts, *own])}")
    return found


def _options(command: click.Command) -> dict[str, click.Option]:
    """The command's options as one writes them, without the dashes."""
    return {
        written.removeprefix("--"): param
        for param in command.params
        if isinstance(param, click.Option)
        for written in param.opts
        if written.startswith("--")
    }


def _value(option: click.Option, value: Any, place: str) -> Any:
    """The value as the command line has it; raises `WrongProfile` for one of another form."""
    if option.multiple:
        if isinstance(value, list) and all(_is_word(each) for each in value):
            return [str(each) for each in value]
        raise WrongProfile(f"{place}: must be a list of texts or numbers")
    if option.is_flag:
        if isinstance(value, bool):
            return value
        raise WrongProfile(f"{place}: must be true or false")
    if _is_word(value):
        return str(value)
    raise WrongProfile(f"{place}: must be a text or a number")


def _is_word(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)
