"""Reads Markdown pages: fenced blocks with what the comments before them say, links and headings."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>[^`]*)$")
_COMMENT = re.compile(r"^ *<!-- (?P<text>.*) -->$")
_KNOWN = re.compile(
    r"not run: (?P<reason>.+)|exits (?P<code>\d+)|starts with: (?P<files>\S+(, \S+)*)|(?P<quoted>a message)"
)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: Its page, relative to the checkout.
        line: Number of the line with the opening fence.
        language: What the fence says: sh, python, text, ...
        text: Between the fences.
        code: The exit code that its one command must end with; 0 for all commands where nothing is said.
        reason: Why it can't run in a test; None where it does run.
        quoted: Whether it is a message of the program's.
    """

    page: str
    line: int
    language: str
    text: str
    code: int = 0
    reason: str | None = None
    quoted: bool = False

    @property
    def commands(self) -> list[str]:
        """The commands of a shell block: its lines, those that go on joined, without comments."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]

    @property
    def name(self) -> str:
        """The page and the first command, to name the block by."""
        return f"{self.page}: {self.commands[0].split(' #')[0].strip()}"


def name_of(page: Path) -> str:
    """Return a page's path relative to the checkout."""
    return page.relative_to(ROOT).as_posix()


@cache
def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page in order.

    Raises:
        ValueError: a comment that says nothing known, or that no block follows; a fence without an end.
    """
    return list(_blocks(page))


def starts_with(page: Path) -> list[str]:
    """Return the files that a page takes for granted beside model and data."""
    found = re.search(r"^<!-- starts with: (.+) -->$", read(page), re.MULTILINE)
    return found[1].split(", ") if found else []


def _blocks(page: Path) -> Iterator[Block]:
    name, lines = name_of(page), iter(enumerate(read(page).splitlines(), 1))
    said: re.Match[str] | None = None
    for number, line in lines:
        comment, fence = _COMMENT.match(line), _FENCE.match(line)
        if comment:
            found = _KNOWN.fullmatch(comment["text"])
            if found is None:
                raise ValueError(f"{name}:{number}: a comment that says nothing known: {line}")
            said = None if found["files"] else found
        elif fence:
            text = []
            for _, inner in lines:
                if inner.strip() == fence["ticks"]:
                    break
                text.append(inner.removeprefix(fence["indent"]))
            else:
                raise ValueError(f"{name}:{number}: the block has no end")
            code = int(said["code"]) if said and said["code"] else 0
            reason = said["reason"] if said else None
            yield Block(name, number, fence["language"], "\n".join(text), code, reason, bool(said and said["quoted"]))
            said = None
        elif said and line.strip():
            raise ValueError(f"{name}:{number}: no block follows the comment before")


def prose(page: Path) -> str:
    """Return a page without its blocks and comments."""
    text = re.sub(r"^( *)(`{3,}).*?^ *\2$", "", read(page), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"<!--.*?-->", "", text)


def links(page: Path) -> list[str]:
    """Return the targets of a page's links that lead to no host."""
    found = re.findall(r"\]\(([^)\s]+)\)|\bsrc=\"([^\"]+)\"", prose(page))
    return [each for pair in found for each in pair if each and not re.match(r"[a-z]+:", each)]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def runs(block: Block) -> bool:
    """Whether a block is code that tests run."""
    return block.language in {"sh", "python"} and block.reason is None


def script(block: Block) -> str:
    """Return a block as a piece of a shell script."""
    return block.text if block.language == "sh" else f"python - <<'END_OF_BLOCK'\n{block.text}\nEND_OF_BLOCK"


if __name__ == "__main__":  # a page as one script: what tests/smoke.sh pastes into a shell
    print("\n".join(script(block) for block in blocks(ROOT / sys.argv[1]) if runs(block)))
