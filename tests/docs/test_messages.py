"""Messages that the pages quote without producing them are messages of the program."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import cloakonnx
from cloakonnx.cli._parameters import option_of

from .pages import PAGES, Block, blocks

QUOTES = [block for page in PAGES for block in blocks(page) if block.quoted]
LEAST = 40
"""Letters that a message must have apart from what is filled in, or it would fit anything."""


@cache
def templates() -> list[re.Pattern[str]]:
    """Return a pattern for each text of the program: what is filled in may be anything."""
    found = []
    for path in Path(cloakonnx.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            parts = list(pieces(node))
            if sum(len(part) for part in parts if part is not None) >= LEAST:
                found.append(re.compile("".join(".+" if part is None else re.escape(named(part)) for part in parts)))
    return found


def named(part: str) -> str:
    """Return a text with parameters as the command line names them."""
    return re.sub(r"\{([A-Za-z][\w.]*)\}", lambda found: option_of(found[1]), part)


def pieces(node: ast.AST) -> Iterator[str | None]:
    """Yield a text's constant pieces, and None for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.JoinedStr):
        for value in node.values:
            yield value.value if isinstance(value, ast.Constant) else None


@pytest.mark.parametrize("block", QUOTES, ids=lambda block: f"{block.page}:{block.line}")
def test_quoted_messages_are_the_programs_own(block: Block) -> None:
    said = block.text.removeprefix("cloakonnx: ")  # the entry point puts it before every line
    assert any(pattern.fullmatch(said) for pattern in templates()), said


def test_there_are_quotes() -> None:
    assert len(QUOTES) >= 5
    assert not any(
        pattern.fullmatch("val.npz: sample 1 has label 13, which is none of the model's") for pattern in templates()
    )
