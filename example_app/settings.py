"""The settings of the example: from the environment, with defaults that need nothing."""

import os
import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import URL, make_url

SQLITE = "sqlite:///example.db"  # a relative path is taken from the instance folder
SECRET_FILE = "jwt-secret"


def from_environment(instance_path: str) -> dict[str, Any]:
    """The configuration for `DATABASE_URL` and `JWT_SECRET_KEY`, both optional."""
    return {
        "SQLALCHEMY_DATABASE_URI": database_url(os.environ.get("DATABASE_URL") or SQLITE),
        "SQLALCHEMY_ENGINE_OPTIONS": {"pool_pre_ping": True},
        "JWT_SECRET_KEY": os.environ.get("JWT_SECRET_KEY") or kept_secret(Path(instance_path)),
        "JWT_ACCESS_TOKEN_EXPIRES": timedelta(hours=1),
    }


def database_url(text: str) -> URL:
    """The URL with psycopg 3 for PostgreSQL, also when a platform still says `postgres://`."""
    url = make_url(text)
    if url.drivername in ("postgres", "postgresql"):
        return url.set(drivername="postgresql+psycopg")
    return url


def kept_secret(folder: Path) -> str:
    """The secret in the folder; made by the first process that asks, the same for all."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SECRET_FILE
    if not path.exists():
        _offer(path, secrets.token_hex(32))
    return path.read_text(encoding="ascii")


def _offer(path: Path, secret: str) -> None:
    """Put the secret at the path, whole and only for its owner, unless one is there already."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(secret)
            file.flush()
            os.fsync(descriptor)
        # Unlike a rename, a link never replaces the secret of a process that was quicker.
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()
