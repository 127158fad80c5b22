"""docs/security.md claims nothing that no test shows."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/security.md").read_text()
NAMED = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", TEXT)


def claims() -> list[str]:
    """The rows of the tables of claims."""
    tables = re.findall(r"\| shown by \|\n(?:\|---)+\|\n((?:\|.*\n)+)", TEXT)
    return [row for table in tables for row in table.splitlines()]


def test_every_claim_names_a_test() -> None:
    assert len(claims()) > 30
    for row in claims():
        assert re.search(r"`tests/[\w/]+\.py::test_\w+`", row.split("|")[-2]), row


def test_every_named_test_exists_and_is_run() -> None:
    functions = {}
    for path in {path for path, _ in NAMED}:
        tree = ast.parse((ROOT / path).read_text())
        functions[path] = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
    named = [(path, name) for path, name in NAMED if name]
    assert len(named) > 50
    for path, name in named:
        assert name in functions[path], f"{path}::{name}"
        decorators = " ".join(map(ast.unparse, functions[path][name].decorator_list))
        assert "skip" not in decorators, f"{path}::{name}"
        assert "xfail" not in decorators, f"{path}::{name}"
