"""`flask e2emsg audit`: what it finds, wherever and however it is written."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
import sqlalchemy as sa
from click.testing import Result
from flask import Flask
from flask_jwt_extended import JWTManager
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Engine

from flask_e2emsg import E2EMessaging, audit
from flask_e2emsg.audit import Texts, search_files

SECRET = 'grüße & küsse "bob"?'
OTHER = "nobody wrote this one"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "host"


@pytest.fixture
def app(engine: Engine, folder: Path) -> Iterator[Flask]:
    """A host with tables of its own, on each database."""
    folder.mkdir()
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = engine.url.render_as_string(hide_password=False)
    app.config["JWT_SECRET_KEY"] = "a secret of the tests, long enough"
    db = SQLAlchemy(app)
    JWTManager(app)
    E2EMessaging().init_app(app, db)
    with app.app_context():
        db.create_all()
    yield app
    app.extensions["e2emsg"].database.dispose()
    with app.app_context():
        db.engine.dispose()


def run(app: Flask, *paths: Path, texts: str = f"{SECRET}\n{OTHER}\n") -> Result:
    command = ["e2emsg", "audit", "-", *map(str, paths)]
    return app.test_cli_runner().invoke(args=command, input=texts)


def test_nothing_is_found_where_nothing_is(app: Flask, folder: Path) -> None:
    (folder / "log").write_text("GET /api/ws 101\n")
    result = run(app, folder)
    assert result.exit_code == 0, result.output
    assert "Looked for 2 texts in 8 tables with 0 rows" in result.output
    assert "found nothing" in result.output


IN_FILES: dict[str, bytes] = {
    "as it is": SECRET.encode(),
    "UTF-16": SECRET.encode("utf-16-le"),
    "JSON": json.dumps({"body": SECRET}).encode(),
    "JSON with letters as they are": json.dumps([SECRET], ensure_ascii=False).encode(),
    "an address": f"GET /search?q={quote(SECRET, safe='')} HTTP/1.1".encode(),
    "a form": f"q={quote_plus(SECRET)}".encode(),
    "hexadecimal": SECRET.encode().hex().encode(),
    "base64": base64.b64encode(SECRET.encode()),
    "base64, one letter in": base64.b64encode(b"<" + SECRET.encode() + b">"),
    "base64url, two letters in": base64.urlsafe_b64encode(b'{"' + SECRET.encode() + b'"}'),
}


@pytest.mark.parametrize("form", IN_FILES)
def test_a_text_in_a_file_is_found_in_whatever_form(app: Flask, folder: Path, form: str) -> None:
    (folder / "deep").mkdir()
    (folder / "deep" / "file").write_bytes(b"before " + IN_FILES[form] + b" after")
    result = run(app, folder)
    assert result.exit_code == 1, result.output
    assert f"in file {folder / 'deep' / 'file'}, byte " in result.output
    assert "FOUND: text 1" in result.output
    assert "text 2" not in result.output
    assert SECRET not in result.output


IN_TABLES = {
    "text": ("TEXT", SECRET),
    "bytes": ("BYTEA", SECRET.encode()),
    "JSON": ("JSON", json.dumps({"a": [SECRET]})),
}


@pytest.mark.parametrize("kind", IN_TABLES)
def test_a_text_in_a_table_of_the_host_is_found(app: Flask, engine: Engine, kind: str) -> None:
    column, value = IN_TABLES[kind]
    name = column if engine.dialect.name == "postgresql" else column.replace("BYTEA", "BLOB")
    with engine.begin() as connection:
        connection.execute(sa.text(f'CREATE TABLE "own notes" (id INTEGER, note {name})'))
        insert = sa.text('INSERT INTO "own notes" VALUES (1, NULL), (2, :note)')
        connection.execute(insert, {"note": value})
    result = run(app)
    assert result.exit_code == 1, result.output
    assert "in table own notes, column note" in result.output
    assert "9 tables with 2 rows" in result.output
    assert SECRET not in result.output


def test_what_was_deleted_is_still_in_the_files_of_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "host.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute("CREATE TABLE notes (note TEXT)")
        connection.execute("INSERT INTO notes VALUES (?)", (SECRET,))
        connection.execute("DELETE FROM notes")
    connection.close()
    engine = sa.create_engine(f"sqlite:///{path}")
    assert list(audit.search_database(engine, Texts([SECRET]))) == []
    [leak] = search_files(audit.files_of(engine), Texts([SECRET]))
    assert leak.place.startswith(f"file {path}, byte ")
    engine.dispose()


@pytest.mark.parametrize("before", [0, 1, 7, 8, 9, 15, 16, 17])
def test_a_text_over_the_border_of_two_reads_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    monkeypatch.setattr(audit, "BYTES_AT_ONCE", 8)
    path = tmp_path / "file"
    path.write_bytes(b"-" * before + b"long secret" + b"-" * 9)
    [leak] = search_files([path], Texts(["long secret"]))
    assert leak.place == f"file {path}, byte {before}"


@pytest.mark.parametrize(
    ("texts", "words"),
    [("", "no text"), ("\n", "shorter than 8"), (f"{SECRET}\nshort\n", "Text 2 is shorter")],
)
def test_what_may_stand_somewhere_by_chance_is_not_looked_for(
    app: Flask, texts: str, words: str
) -> None:
    result = run(app, texts=texts)
    assert result.exit_code == 1
    assert words in result.output


def test_a_database_that_is_away_is_named_without_its_address(
    app: Flask, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> Callable[..., object]:
        raise sa.exc.OperationalError("SELECT 1", {}, Exception("password=hunter2"))

    monkeypatch.setattr(sa, "inspect", fail)
    result = run(app)
    assert result.exit_code == 1
    assert "The database failed: OperationalError." in result.output
    assert "hunter2" not in result.output
