"""What is written from something else is as it would be written now."""

import inspect
import re
import typing
from pathlib import Path

import pytest

from atmc_client import AsyncClient, Client
from generators import sync, types


@pytest.mark.parametrize("generator", [sync, types])
def test_what_is_kept_is_what_make_generate_would_write(generator):
    written: dict[Path, str] = generator.written()
    assert len(written) > 1
    stale = [path.name for path, content in written.items() if path.read_text() != content]
    assert stale == [], "run `make generate`"
    by_hand = {generator.TARGET / name for name in generator.BY_HAND}
    assert set(written) | by_hand == set(generator.TARGET.glob("*.py"))


def _surface(kind: type) -> dict[str, tuple[object, object]]:
    """The public methods: their parameters, and what the caller has in the end."""
    found = {}
    for name, method in inspect.getmembers(kind, inspect.isfunction):
        if name.startswith("_"):
            continue
        signature = inspect.signature(method)
        returned = str(typing.get_type_hints(inspect.unwrap(method))["return"])
        found[name] = (
            [str(each).replace("Awaitable", "") for each in signature.parameters.values()],
            re.sub(r"\bAsyncIterator\b", "Iterator", returned),
        )
    return found


def test_both_clients_have_the_same_methods_parameters_and_answers():
    surface = _surface(Client)
    assert surface == _surface(AsyncClient)
    assert surface["get_job"][1] == "<class 'atmc_client.types.answers.Job'>"
    assert surface["report"][1] == "<class 'atmc_client.types.report.Report'>"
    waiting = {name for name, (_, returned) in surface.items() if "Iterator" not in returned}
    for name in waiting:
        assert inspect.iscoroutinefunction(getattr(AsyncClient, name)), name
        assert not inspect.iscoroutinefunction(getattr(Client, name)), name


def test_no_public_method_answers_with_fields_that_nobody_knows():
    untyped = [name for name, (_, returned) in _surface(Client).items() if "Any" in returned]
    assert untyped == []


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_every_public_method_says_what_it_does_and_what_it_takes(kind):
    silent = []
    for name, method in inspect.getmembers(kind, inspect.isfunction):
        if name.startswith("_"):
            continue
        said = inspect.cleandoc(method.__doc__ or "")
        taken = [each for each in inspect.signature(method).parameters if each != "self"]
        silent += [
            f"{name}({each})" for each in taken if not re.search(rf"^    {each}: ", said, re.M)
        ]
        silent += [] if said else [name]
        awaited = re.search(r"\bawait client|async (for|with)", said) is not None
        assert not awaited or kind is AsyncClient, name
    assert silent == []
