"""`flask e2emsg revision`, `purge`, `restored`, `doctor` and `audit`.

`revision` writes a migration into the host's own Flask-Migrate folder, which calls the steps that
ship with this package, so that `flask db upgrade` is all that a host ever runs. It changes no
database. `purge` removes what is past its time, for a cron job or by hand. `restored` is for the
time after a restore from a backup. `doctor` says what is wrong with the settings, and what to do.
`audit` looks for texts that the server should never have seen.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import click
import sqlalchemy as sa
from alembic.script import ScriptDirectory
from alembic.util import CommandError, rev_id
from flask import current_app
from flask.cli import AppGroup

from .audit import Texts, files_of, search_database, search_files
from .doctor import examine, load_gunicorn
from .errors import E2EMsgError
from .store import schema
from .store.models import accounts
from .store.purge import purge

e2emsg_cli = AppGroup("e2emsg", help="The tables and the upkeep of end-to-end encrypted messages.")


@e2emsg_cli.command("revision")
@click.option("-m", "--message", default="messaging tables", show_default=True)
def write_revision(message: str) -> None:
    """Write the migration that brings the messaging tables to this version."""
    try:
        scripts = _scripts_of_host()
        since = _version_reached(scripts)
        if since >= schema.VERSION:
            click.echo(f"Nothing to do: your migrations reach version {since}, the newest.")
            return
        _write(scripts, message, since)
    except CommandError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"It takes the tables from {since} to {schema.VERSION}. Now run `flask db upgrade`.")


@e2emsg_cli.command("purge")
def run_purge() -> None:
    """Delete expired messages, and delivered ones older than E2EMSG_RETENTION_DAYS."""
    state = current_app.extensions["e2emsg"]
    try:
        removed = purge(state.database, state.settings.retention_days)
    except E2EMsgError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"Removed {removed} {'message' if removed == 1 else 'messages'}.")


@e2emsg_cli.command("restored")
def run_restored() -> None:
    """Tell all clients to start anew, after the database was restored from a backup.

    What was stored after the backup is gone, and its positions will be given out again. Run it
    before the workers start.
    """
    state = current_app.extensions["e2emsg"]
    try:
        count = state.process.accounts.renew_epochs()
    except E2EMsgError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{count} {'mailbox has' if count == 1 else 'mailboxes have'} a new epoch.")


@e2emsg_cli.command("doctor")
@click.option(
    "--gunicorn",
    "location",
    metavar="FILE",
    help="Look at this gunicorn configuration, too: a file, or a module as python:NAME.",
)
def run_doctor(location: str | None) -> None:
    """Say what is wrong with the database, the tokens and the server, and what to do."""
    try:
        gunicorn = None if location is None else load_gunicorn(location)
    except E2EMsgError as error:
        raise click.ClickException(str(error)) from error
    findings = list(examine(current_app.extensions["e2emsg"], gunicorn))
    for finding in findings:
        click.echo(f"{'PROBLEM' if finding.is_problem else 'note'}: {finding.advice}")
    problems = sum(finding.is_problem for finding in findings)
    if problems:
        click.echo(f"{problems} {'problem' if problems == 1 else 'problems'} found.")
        sys.exit(1)
    click.echo("No problems found.")


@e2emsg_cli.command("audit")
@click.argument("texts", type=click.File(encoding="utf-8"))
@click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path))
def run_audit(texts: TextIO, paths: tuple[Path, ...]) -> None:
    """Look for texts that only clients should know: in every table of the database, and in PATHS.

    TEXTS is a file with one text on each line, or - for standard input. Write them with a real
    client first. PATHS are logs, dumps, captures of traffic, or folders of them; the files of a
    SQLite database are looked through anyway.
    """
    engine = current_app.extensions["sqlalchemy"].engine
    seen: list[tuple[object, int]] = []
    try:
        wanted = Texts(texts.read().splitlines())
        leaks = [
            *search_database(engine, wanted, lambda table, rows: seen.append((table, rows))),
            *search_files([*files_of(engine), *paths], wanted, lambda *file: seen.append(file)),
        ]
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    except sa.exc.SQLAlchemyError as error:
        # The text may hold the address, and that a password.
        raise click.ClickException(f"The database failed: {type(error).__name__}.") from None
    for leak in leaks:
        click.echo(f"FOUND: text {leak.number} {leak.form} in {leak.place}")
    files = [(name, size) for name, size in seen if isinstance(name, Path)]
    rows = sum(count for name, count in seen if not isinstance(name, Path))
    click.echo(
        f"Looked for {wanted.count} {'text' if wanted.count == 1 else 'texts'} in "
        f"{len(seen) - len(files)} tables with {rows} rows, and in {len(files)} files with "
        f"{sum(size for _, size in files)} bytes: found {len(leaks) or 'nothing'}."
    )
    if leaks:
        sys.exit(1)


def _scripts_of_host() -> ScriptDirectory:
    if "migrate" not in current_app.extensions:
        raise click.ClickException(
            "This app has no Flask-Migrate. Add `Migrate(app, db)`, then run `flask db init`."
        )
    configured = current_app.extensions["migrate"]
    if not (Path(configured.directory) / "env.py").is_file():
        raise click.ClickException(
            f"There are no migrations in {configured.directory!r}. Run `flask db init` first."
        )
    scripts = ScriptDirectory.from_config(configured.migrate.get_config(configured.directory))
    if len(heads := scripts.get_heads()) > 1:
        raise click.ClickException(
            f"Your migrations have several heads ({', '.join(sorted(heads))}). "
            "Run `flask db merge heads` first."
        )
    return scripts


def _version_reached(scripts: ScriptDirectory) -> int:
    """The newest version of the tables that the host's revisions go to; 0 before the first."""
    version, autogenerated = 0, None
    for revision in scripts.walk_revisions():
        source = Path(revision.path).read_text(encoding="utf-8")
        version = max([version, *_upgrades_in(ast.parse(source))])
        autogenerated = revision.revision if accounts.name in source else autogenerated
    if version == 0 and autogenerated:
        raise click.ClickException(
            f"Revision {autogenerated} was autogenerated with the messaging tables in it. "
            "Keep them up to date with `flask db migrate`."
        )
    return version


def _upgrades_in(tree: ast.AST) -> Iterator[int]:
    """The versions in `schema.upgrade(op, since=…, to=…)`, whatever `schema` is called there."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            for keyword in node.keywords if name == "upgrade" else ():
                match keyword:
                    case ast.keyword("to", ast.Constant(int(version))):
                        yield version


def _write(scripts: ScriptDirectory, message: str, since: int) -> None:
    upgrade = f"schema.upgrade(op, since={since}, to={schema.VERSION})"
    downgrade = f"schema.downgrade(op, since={schema.VERSION}, to={since})"
    scripts.generate_revision(
        rev_id(),
        message,
        imports="from flask_e2emsg.store import schema",
        upgrades=upgrade,
        downgrades=downgrade,
        # The template for several databases has a part for each, the default one without a name.
        _upgrades=upgrade,
        _downgrades=downgrade,
    )
