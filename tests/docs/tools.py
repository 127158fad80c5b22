"""What each tool that the documents name would say of a command's options, without running it."""

import argparse
import importlib.util
import os
import re
import runpy
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import pytest
import yaml
from packaging.requirements import Requirement

from atmc_client.cli import cli
from tests.docs.blocks import ROOT

_ELIDED = "..."


class WrongCommand(Exception):
    """The tool has no such command or option; the message says which."""


def is_known(words: list[str]) -> bool:
    """Whether it is a command, and not only the name of one, of a tool that is looked at here."""
    return len(words) > 1 and Path(words[0]).name in _TOOLS


def check(words: list[str], *, whole: bool) -> None:
    """Raise `WrongCommand` for what the tool does not know.

    One that is not `whole`, of a sentence, may leave out what it is not about, and has `[--option]`
    for what may be left out.
    """
    name = Path(words[0]).name
    if name not in _TOOLS:
        raise WrongCommand(f"{name}: tests/docs/tools.py knows no such tool")
    _TOOLS[name]([_without_brackets(word) for word in words[1:]], whole)


def _without_brackets(word: str) -> str:
    opened = word.removeprefix("[")
    return opened if "[" in opened else opened.removesuffix("]")


def _atmc(words: list[str], whole: bool) -> None:
    if words[0] == "serve":
        # Its options are the launcher's.
        _module("launcher", words[1:], whole)
        return
    command: click.Command = cli
    for word in words:
        if word.startswith("--"):
            options = [written for each in command.params for written in each.opts]
            options += [written for each in command.params for written in each.secondary_opts]
            if word.partition("=")[0] not in (*options, "--help"):
                raise WrongCommand(f"atmc {command.name} has no {word}")
        elif isinstance(command, click.Group):
            if word not in command.commands:
                raise WrongCommand(f"atmc {command.name} has no {word}")
            command = command.commands[word]


def _make(words: list[str], _: bool) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for word in words:
        name, assigned, _value = word.partition("=")
        if assigned and f"$({name})" not in makefile:
            raise WrongCommand(f"make: the Makefile asks for no {name}")
    done = _run(["make", "--dry-run", *words])
    if done.returncode != 0:
        raise WrongCommand(done.stderr)


def _python(words: list[str], whole: bool) -> None:
    option, *rest = words
    if option == "-c":
        compile(rest[0], "-c", "exec")
    elif option != "-m":
        raise WrongCommand(f"python {option}: look at it in tests/docs/tools.py")
    elif rest[0] == "pytest":
        _pytest(rest[1:])
    else:
        _module(rest[0], rest[1:], whole)


def _pytest(words: list[str]) -> None:
    _hold_to_help([sys.executable, "-m", "pytest", "--help", "--noconftest"], words)
    for word in words:
        if "/" in word and not (ROOT / word).exists():
            raise WrongCommand(f"pytest: there is no {word}")


class _Stopped(Exception):
    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


@cache
def _source(module: str) -> str:
    """What the module runs as a command."""
    spec = importlib.util.find_spec(module)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{module}.__main__")
    if spec is None or spec.origin is None:
        raise WrongCommand(f"there is no module {module} to run")
    return Path(spec.origin).read_text()


@cache
def _parser(module: str) -> argparse.ArgumentParser:
    """The parser of the module's command line."""

    def stop(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise _Stopped(parser)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module])
        patch.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        try:
            with warnings.catch_warnings(action="ignore"):
                runpy.run_module(module, run_name="__main__")
        except _Stopped as found:
            return found.parser
    raise AssertionError(f"{module} ran without a look at its command line")


def _module(module: str, words: list[str], whole: bool) -> None:
    source = _source(module)
    if not whole or "ArgumentParser" not in source:
        # Importing what measures takes seconds: here its source is enough.
        unknown = [word for word in words if word.startswith("-") and not _names(source, word)]
        if unknown:
            raise WrongCommand(f"python -m {module} has no {unknown}")
        return
    parser = _parser(module)
    if _ELIDED in words:
        # As the command above it, but for what is said.
        for action in parser._actions:
            action.required = False
        words = [word for word in words if word != _ELIDED]

    def refuse(message: str) -> None:
        raise WrongCommand(f"python -m {module}: {message}")

    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr(parser, "error", refuse)
        patch.chdir(folder)
        # Some parsers look whether a file that is named is there.
        for word in words:
            if re.fullmatch(r"[A-Z][A-Z-]+|[\w-]+\.[a-z]+", word):
                Path(word).touch()
        parser.parse_args(words)


def _names(source: str, option: str) -> bool:
    """Whether it is written out there, or is a field of the options that are made of fields."""
    field = option.lstrip("-").replace("-", "_")
    return (
        f'"{option}"' in source
        or option == "--help"
        or ('f"--{' in source and f"    {field}: " in source)
    )


def _curl(words: list[str], _: bool) -> None:
    _hold_to_help(["curl", "--help", "all"], words)


def _hold_to_help(question: list[str], words: list[str]) -> None:
    unknown = {word.partition("=")[0] for word in words if word.startswith("-")}
    unknown -= _options(*question)
    if unknown:
        raise WrongCommand(f"{' '.join(question)} does not name {unknown}")


@cache
def _options(*question: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--?[\w-]+", _run(list(question)).stdout))


def _docker(words: list[str], _: bool) -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    profiles = {profile for each in compose.values() for profile in each.get("profiles", [])}
    if words[0] != "compose":
        raise WrongCommand(f"docker {words[0]}: look at it in tests/docs/tools.py")
    for option, value in pairwise(words):
        if option == "-f" and not (ROOT / value).is_file():
            raise WrongCommand(f"docker compose: there is no {value}")
        if option == "--profile" and value not in profiles:
            raise WrongCommand(f"docker compose: no service has the profile {value}")


def _kubectl(words: list[str], _: bool) -> None:
    """Nobody answers at this address: kubectl's own refusals come before it is asked."""
    nobody = ["--server=http://127.0.0.1:9"]
    tool = str(Path(sys.executable).with_name("kubectl"))
    filled = [re.sub(r"docker/secrets/\S+", os.devnull, word) for word in words]
    done = _run([tool, *filled, *(nobody if "kustomize" not in words else [])])
    if done.returncode != 0 and not re.search("refused|no objects passed", done.stderr):
        raise WrongCommand(f"kubectl: {done.stderr}")


def _pip(words: list[str], _: bool) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in words[1:]:
        wanted = Requirement(word)
        unknown = wanted.extras - set(project["optional-dependencies"])
        if wanted.name != project["name"] or unknown:
            raise WrongCommand(f"pip: {word} is no part of this project")


def _jq(words: list[str], _: bool) -> None:
    done = _run(["jq", "--null-input", *words])
    if done.returncode != 0:
        raise WrongCommand(f"jq: {done.stderr}")


def _sh(words: list[str], _: bool) -> None:
    if words[0] != "-c" and not (ROOT / words[0]).is_file():
        raise WrongCommand(f"sh: there is no {words[0]}")


def _run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment | {"KUBECONFIG": os.devnull, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


_TOOLS: dict[str, Callable[[list[str], bool], None]] = {
    "atmc": _atmc,
    "curl": _curl,
    "docker": _docker,
    "jq": _jq,
    "kubectl": _kubectl,
    "make": _make,
    "pip": _pip,
    "python": _python,
    "sh": _sh,
}
