"""Every command of the documents is run by a test, or stands here with the reason why not.

What is not run is held to the parser of its tool, so that a misspelt option is found all the same.
"""

import ast
import importlib
from collections.abc import Iterator
from functools import cache

import pytest

from tests.docs import tools
from tests.docs.blocks import DOCUMENTS, ROOT, SHELL, Block, blocks, commands, spans

NOT_RUN = {
    ("README.md", "make demo"): "installs first; tests/e2e/test_demo.py runs what it runs",
    ("README.md", "make test"): "the tests themselves",
    ("CONTRIBUTING.md", "make setup"): "installs from an index, for minutes",
    ("CONTRIBUTING.md", "make audit"): "asks an index; tests/launcher/test_requirements.py audits",
    ("CONTRIBUTING.md", "make lint"): "a step of its own of every build",
    ("CONTRIBUTING.md", "make test"): "the tests themselves",
    ("CONTRIBUTING.md", "python -m pytest"): "needs a GPU",
    ("docs/operations.md", "export ATMC_API_KEY"): "needs somebody's OpenID Connect provider",
    ("docs/operations.md", "export ATMC_TOKEN_COMMAND"): "needs Google's command line",
    ("docs/operations.md", "OTEL_EXPORTER"): "serves until it is stopped",
    ("docs/operations.md", "kubectl"): "needs a Kubernetes cluster",
    ("docs/quickstart.md", "make setup"): "installs from an index, then serves until it is stopped",
    ("docs/quickstart.md", ". .venv"): "needs the folder that `make setup` makes",
    ("docs/reference/client.md", "job = client.submit("): "names somebody's bucket and host; "
    "tests/atmc_client/test_sources.py submits such URIs",
    ("docs/results.md", "python -m"): "trains for hours, some on a GPU",
}
"""What no test runs, by document and beginning of the block, and why."""

LANGUAGES = ("json", "toml", "python", "text", SHELL)
"""Those of the blocks; `text` is nothing to run or to read."""


@cache
def calls() -> set[tuple[str, ...]]:
    """The documents and beginnings that tests name to `block` and `fenced`."""
    found = set()
    for path in (ROOT / "tests").rglob("*.py"):
        text = path.read_text()
        if "tests.docs.blocks" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                values = [each.value for each in node.args if isinstance(each, ast.Constant)]
                if node.func.id in ("block", "fenced") and values:
                    found.add((node.func.id, *map(str, values)))
    return found


def is_run(block: Block) -> bool:
    """Whether a test takes the block from its document."""
    begins = [
        beginning
        for kind, document, *beginnings in calls()
        for beginning in beginnings
        if (kind, document) == ("block", block.document)
    ]
    is_sh = block.is_fenced and block.language == SHELL
    whole_page = is_sh and ("fenced", block.document) in calls()
    return whole_page or any(map(block.text.startswith, begins))


def excuses(block: Block) -> list[tuple[str, str]]:
    """The entries of `NOT_RUN` that are about the block."""
    return [key for key in NOT_RUN if key[0] == block.document and block.text.startswith(key[1])]


def code(language: str) -> list[Block]:
    return [each for name in DOCUMENTS for each in blocks(name) if each.language == language]


def test_every_command_is_run_or_says_why_not() -> None:
    used = set()
    for each in (each for document in DOCUMENTS for each in blocks(document)):
        assert each.language in LANGUAGES, f"{each}: say how it is tested"
        if each.language != "text":
            found = excuses(each)
            used |= set(found)
            assert is_run(each) or found, f"{each}: run it in a test, or say in NOT_RUN why not"
            assert not (is_run(each) and found), f"{each}: it is run: take it out of NOT_RUN"
    assert used == set(NOT_RUN), "no document has the others any more"


def test_no_command_has_an_option_that_its_tool_has_not() -> None:
    wrong = []
    for each in code(SHELL):
        for words in commands(each.text):
            if tools.is_known(words) or not is_run(each):
                wrong += refusal(str(each), words, whole=True)
    assert not wrong, "\n".join(wrong)


def test_neither_has_one_within_a_sentence() -> None:
    wrong = []
    for document in DOCUMENTS:
        for span in spans(document):
            for words in parsed(span):
                if tools.is_known(words):
                    wrong += refusal(document, words, whole=False)
    assert not wrong, "\n".join(wrong)


def refusal(where: str, words: list[str], *, whole: bool) -> Iterator[str]:
    # `. .venv/bin/activate`, alone of all, is the shell's own.
    if words[0] != ".":
        try:
            tools.check(words, whole=whole)
        except tools.WrongCommand as error:
            yield f"{where}: {' '.join(words)}: {error}"


def parsed(span: str) -> list[list[str]]:
    try:
        return list(commands(span))
    except ValueError:
        # An apostrophe: no command.
        return []


@pytest.mark.parametrize(
    ("command", "why"),
    [
        ("atmc sweep m.safetensors --densitys .1", "--densitys"),
        ("atmc sweeps shows X", "shows"),
        ("make tset", "tset"),
        ("make test TESTS=1", "TESTS"),
        ("python -m benchmarks.sweep --goal high", "high"),
        ("python -m benchmarks.sweep --gaol 0.2", "--gaol"),
        ("python -m benchmarks.sweeps", "no module"),
        ("python -m atmc_reader --outputs x", "--outputs"),
        ("python -m pytest tests/none", "tests/none"),
        ("curl --heeder x http://127.0.0.1", "--heeder"),
        ("kubectl apply --kustomise docker/kubernetes/cpu", "--kustomise"),
        ("docker compose --profile tpu up", "tpu"),
        ("pip install 'atmc[verification]'", "verification"),
        ("sh docker/secret.sh", "docker/secret.sh"),
        ("teleport", "knows no such tool"),
    ],
)
def test_a_misspelt_one_is_found(command: str, why: str) -> None:
    (words,) = commands(command)
    with pytest.raises(tools.WrongCommand, match=why):
        tools.check(words, whole=True)


def test_what_is_written_in_python_compiles_and_finds_its_imports() -> None:
    assert code("python")
    for each in code("python"):
        tree = ast.parse(each.text, str(each))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(str(node.module))
                missing = [name.name for name in node.names if not hasattr(module, name.name)]
                assert not missing, each
            elif isinstance(node, ast.Import):
                for name in node.names:
                    importlib.import_module(name.name)
