"""What the documents have of commands and code, for the tests that run it as it stands there.

A fenced block says its language; an indented one is shell. A test takes what it runs by `block` or
`fenced`, with the document's name written out: by these calls test_documents.py knows what is run.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *("README.md", "CONTRIBUTING.md", "SECURITY.md"),
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")),
]
SHELL = "sh"


@dataclass(frozen=True)
class Block:
    """A block of code of a document."""

    document: str
    heading: str
    """That under which it stands."""
    language: str
    is_fenced: bool
    text: str

    def __str__(self) -> str:
        return f"{self.document} [{self.heading}] {self.text.splitlines()[0]}"


@cache
def _tokens(document: str) -> list[tuple[str, str, str, str]]:
    """Of each piece of code: the heading above, its token's type, info and content."""
    found = []
    heading = ""
    tokens = MarkdownIt().enable("table").parse((ROOT / document).read_text())
    for before, token in zip([None, *tokens], tokens, strict=False):
        if before is not None and before.type == "heading_open":
            heading = token.content
        found += [
            (heading, each.type, each.info.strip(), each.content)
            for each in [token, *(token.children or [])]
            if each.type in ("fence", "code_block", "code_inline")
        ]
    return found


def blocks(document: str) -> list[Block]:
    """All blocks of a document."""
    return [
        Block(document, heading, info if kind == "fence" else SHELL, kind == "fence", content)
        for heading, kind, info, content in _tokens(document)
        if kind != "code_inline"
    ]


def spans(document: str) -> list[str]:
    """What stands as code within a document's sentences and tables."""
    return [content for _, kind, _, content in _tokens(document) if kind == "code_inline"]


def block(document: str, beginning: str) -> str:
    """The one block of the document that begins so."""
    (found,) = [each for each in blocks(document) if each.text.startswith(beginning)]
    return found.text


def fenced(document: str) -> dict[str, str]:
    """The commands of the document's fenced blocks, joined by the heading that they stand under."""
    found: dict[str, str] = {}
    for each in blocks(document):
        if each.is_fenced and each.language == SHELL:
            found[each.heading] = found.get(each.heading, "") + each.text
    return found


def commands(script: str) -> Iterator[list[str]]:
    """The words of each simple command of a script, without comments, assignments and targets."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if pending.endswith("\\\n"):
            pending = pending[:-2]
            continue
        lexer = shlex.shlex(pending, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        try:
            words = list(lexer)
        except ValueError:
            # A quotation goes on in the next line.
            continue
        pending = ""
        yield from _simple(words)
    if pending:
        raise ValueError(f"this ends within a quotation: {pending}")


def _simple(words: list[str]) -> Iterator[list[str]]:
    command: list[str] = []
    is_target = False
    for word in [*words, ";"]:
        if word and set(word) <= set("<>"):
            is_target = True
        elif word and set(word) <= set("();|&<>"):
            if command and command[0] != "for":
                yield command
            command, is_target = [], False
        elif is_target:
            is_target = False
        elif command or not re.match(r"[A-Z_]+=|(export|do|done)$", word):
            command.append(word)


def named(script: str, **names: object) -> str:
    """The script with what the document leaves to its reader, JOB and the like, filled in."""
    return re.sub(r"\b[A-Z]+\b", lambda word: str(names.get(word[0], word[0])), script)


def run(script: str, folder: Path, stdin: str = "", **variables: str) -> str:
    """Have bash run it in a folder as a reader would; returns what it prints.

    `atmc` and `python` are of this environment. Every step has to succeed.
    """
    tools = Path(sys.executable).parent
    environment = os.environ | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "no_proxy": "*",
    }
    step = ["bash", "-euo", "pipefail", "-c", script]
    environment |= variables
    done = subprocess.run(
        step, cwd=folder, env=environment, input=stdin, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout
