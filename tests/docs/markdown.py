"""Markdown as far as the tests of the documents read it: blocks, tables, headings and links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tests.servers import REPOSITORY

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`]+)`")
_FILE_NAME = re.compile(r"# ([\w.]+\.py)\n")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    place: str  # file and line
    language: str
    text: str = field(repr=False)

    @property
    def file_name(self) -> str | None:
        """The file that the block is, if its first line says so."""
        match = _FILE_NAME.match(self.text)
        return match and match[1]

    @property
    def lines(self) -> list[str]:
        """Its lines that are not empty."""
        return [line for line in self.text.splitlines() if line.strip()]


@dataclass(frozen=True)
class Page:
    """A Markdown file of the repository."""

    path: Path

    @classmethod
    def at(cls, name: str) -> Page:
        """The page of this path in the repository."""
        return cls(REPOSITORY / name)

    @cached_property
    def text(self) -> str:
        """All of it."""
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def prose(self) -> str:
        """All but the blocks."""
        return _FENCE.sub("", self.text)

    def blocks(self, *languages: str) -> list[Block]:
        """Its blocks in these languages, or all, from the top."""
        found = []
        for match in _FENCE.finditer(self.text):
            line = self.text.count("\n", 0, match.start()) + 1
            if not languages or match[1] in languages:
                found.append(Block(f"{self.path.name}:{line}", match[1], match[2]))
        return found

    def files(self) -> dict[str, str]:
        """The blocks that are files, by name; the first one of a name counts."""
        named: dict[str, str] = {}
        for block in self.blocks("python"):
            if block.file_name is not None:
                named.setdefault(block.file_name, block.text)
        return named

    def code(self) -> list[str]:
        """What stands in backticks in the prose."""
        return [text.replace("\n", " ") for text in _CODE.findall(self.prose)]

    def links(self) -> list[str]:
        """The targets of the links."""
        return _LINK.findall(self.prose)

    def anchors(self) -> set[str]:
        """What links can name after `#`."""
        titles = (title for _, title in _HEADING.findall(self.prose))
        return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}

    def rows(self, heading: str) -> list[list[str]]:
        """The rows, without their head, of the first table under a heading."""
        _, found, rest = self.text.partition(f"# {heading}\n")
        assert found, f"{self.path.name} has no heading {heading!r}"
        lines = iter(rest.splitlines())
        return [
            [cell.strip() for cell in line.strip().strip("|").split(" | ")]
            for line in _first_table(lines)
        ][2:]

    def __str__(self) -> str:
        return str(self.path.relative_to(REPOSITORY))


def _first_table(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if line.startswith("|"):
            yield line
            break
    for line in lines:
        if not line.startswith("|"):
            return
        yield line


def in_backticks(cell: str) -> list[str]:
    """The pieces of a table's cell that stand in backticks."""
    return _CODE.findall(cell)
