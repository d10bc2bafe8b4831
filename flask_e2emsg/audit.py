"""Looks for texts where they must not be: in every table of the host's database, and in files.

Whoever doubts that clients encrypt writes some texts with a real client, then looks for them here.
A text is looked for as it is and as programs write it: in UTF-8 and UTF-16, escaped as in JSON and
in addresses, in hexadecimal, and in base64 wherever in it the text begins. What is compressed or
encrypted is not seen. What is found is told by its place, never shown.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, quote_plus

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

SHORTEST = 8  # characters of a text; a shorter one may stand somewhere by chance
ROWS_AT_ONCE = 1000
BYTES_AT_ONCE = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Leak:
    """Where a text was found."""

    number: int  # of the text, from 1
    form: str  # in which it was written
    place: str  # a table and its column, or a file and how far into it


class Texts:
    """Texts to look for.

    Args:
        texts: of at least `SHORTEST` characters each.

    Raises:
        ValueError: there is none, or one is too short.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        if not texts:
            raise ValueError("There is no text to look for.")
        short = next((n for n, text in enumerate(texts, 1) if len(text) < SHORTEST), None)
        if short is not None:
            raise ValueError(f"Text {short} is shorter than {SHORTEST} characters.")
        self.count = len(texts)
        self._forms = [
            (number, form, written)
            for number, text in enumerate(texts, 1)
            for form, written in _forms(text)
        ]
        self.longest = max(len(written) for _, _, written in self._forms)

    def found_in(self, octets: bytes) -> Iterator[tuple[int, str, int]]:
        """Each text that is there: its number, the form, and where it begins; once for a form."""
        for number, form, written in self._forms:
            at = octets.find(written)
            if at >= 0:
                yield number, form, at


def _forms(text: str) -> Iterator[tuple[str, bytes]]:
    seen: set[bytes] = set()
    for form, written in _all_forms(text):
        if written not in seen:
            seen.add(written)
            yield form, written


def _all_forms(text: str) -> Iterator[tuple[str, bytes]]:
    octets = text.encode()
    yield "as it is", octets
    yield "as UTF-16", text.encode("utf-16-le")
    yield "as UTF-16, big-endian", text.encode("utf-16-be")
    yield "as JSON", json.dumps(text)[1:-1].encode()
    yield "as JSON", json.dumps(text, ensure_ascii=False)[1:-1].encode()
    yield "as an address", quote(text, safe="").encode()
    yield "as an address", quote_plus(text).encode()
    yield "as hexadecimal", octets.hex().encode()
    yield "as hexadecimal", octets.hex().upper().encode()
    for before in range(3):
        # The letters at both ends also hold bits of what stands around the text.
        whole = b64encode(bytes(before) + octets)
        inner = whole[(0, 2, 3)[before] : (8 * (before + len(octets))) // 6]
        yield "as base64", inner
        yield "as base64url", inner.translate(bytes.maketrans(b"+/", b"-_"))


def search_database(
    engine: Engine, texts: Texts, saw: Callable[[str, int], object] = lambda table, rows: None
) -> Iterator[Leak]:
    """Every column of every row of every table, the host's own included.

    Args:
        engine: of the host.
        texts: what to look for.
        saw: is told of each table and how many rows it had.
    """
    with engine.connect().execution_options(stream_results=True) as connection:
        for table in sa.inspect(engine).get_table_names():
            leaks: dict[tuple[int, str, str], Leak] = {}
            count = 0
            for column, octets in _values(connection, table):
                count += column is None
                for number, form, _ in texts.found_in(octets):
                    place = f"table {table}, column {column}"
                    leaks.setdefault((number, form, place), Leak(number, form, place))
            saw(table, count)
            yield from leaks.values()


def _values(connection: Connection, table: str) -> Iterator[tuple[str | None, bytes]]:
    """Each value with its column; after the last one of a row, nothing of no column."""
    statement = sa.select(sa.text("*")).select_from(sa.table(table))
    rows = connection.execute(statement)
    names = list(rows.keys())
    for some in rows.partitions(ROWS_AT_ONCE):
        for row in some:
            for name, value in zip(names, row, strict=True):
                if value is not None:
                    yield name, _octets(value)
            yield None, b""


def _octets(value: object) -> bytes:
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    return str(value).encode(errors="surrogatepass")


def search_files(
    paths: Iterable[Path],
    texts: Texts,
    saw: Callable[[Path, int], object] = lambda path, size: None,
) -> Iterator[Leak]:
    """Files, and all files in folders.

    Args:
        paths: what to look through.
        texts: what to look for.
        saw: is told of each file and how many bytes it had.

    Raises:
        OSError: one cannot be read.
    """
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if path == file or file.is_file():
                yield from _search_file(file, texts, saw)


def _search_file(path: Path, texts: Texts, saw: Callable[[Path, int], object]) -> Iterator[Leak]:
    found: set[tuple[int, str]] = set()
    before, size = b"", 0
    with path.open("rb") as file:
        while some := file.read(BYTES_AT_ONCE):
            octets = before + some
            for number, form, at in texts.found_in(octets):
                if (number, form) not in found:
                    found.add((number, form))
                    yield Leak(number, form, f"file {path}, byte {size - len(before) + at}")
            size += len(some)
            before = octets[-texts.longest :]
    saw(path, size)


def files_of(engine: Engine) -> list[Path]:
    """The files of a SQLite database, which also hold what was deleted or is not yet in it."""
    name = engine.url.database
    if engine.dialect.name != "sqlite" or not name or name == ":memory:":
        return []
    files = [Path(name + suffix) for suffix in ("", "-wal", "-shm", "-journal")]
    return [file for file in files if file.is_file()]
