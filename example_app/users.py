"""Sign-up and login: `POST /api/register` and `POST /api/login`.

Both take `{"username", "password"}` and answer `{"access_token", "user_id"}`. A refusal has the
shape of every other error under `/api`: `{"error": {"code", "message"}}`.
"""

import re
import unicodedata

import msgspec
from flask import Blueprint, Response, jsonify, request
from flask_jwt_extended import create_access_token
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from . import passwords
from .models import User, db

MAX_BODY_BYTES = 4096
USERNAME = re.compile(r"[\w.@+-]{1,80}")
PASSWORD_LENGTHS = range(8, 129)

bp = Blueprint("users", __name__, url_prefix="/api")


class Credentials(msgspec.Struct):
    username: str
    password: str


@bp.post("/register")
def register() -> tuple[Response, int]:
    """Sign up: {"username", "password"}."""
    given = _credentials()
    if not USERNAME.fullmatch(given.username):
        return _refusal(400, "bad_request", "A username is 1 to 80 letters, digits or . _ @ + -")
    if len(given.password) not in PASSWORD_LENGTHS:
        return _refusal(400, "bad_request", "A password has 8 to 128 characters.")

    user = User(username=given.username, password_hash=passwords.hashed(given.password))
    db.session.add(user)
    try:
        db.session.commit()
    except IntegrityError:
        db.session.rollback()
        return _refusal(409, "username_taken", "This username is taken. Choose another one.")
    return _welcome(user.id), 201


@bp.post("/login")
def login() -> tuple[Response, int]:
    """Log in: {"username", "password"}."""
    given = _credentials()
    row = db.session.execute(
        select(User.id, User.password_hash).where(User.username == given.username)
    ).first()
    # Gives the connection back: no request holds one while it computes a hash.
    db.session.remove()

    if not passwords.is_right(given.password, row.password_hash if row else None) or row is None:
        return _refusal(401, "unauthorized", "The username or the password is wrong.")
    return _welcome(row.id), 200


@bp.before_request
def _limit_body() -> None:
    request.max_content_length = MAX_BODY_BYTES


@bp.errorhandler(BadRequest)
def _malformed(error: BadRequest) -> tuple[Response, int]:
    return _refusal(400, "bad_request", error.description or "")


@bp.errorhandler(RequestEntityTooLarge)
def _too_large(error: RequestEntityTooLarge) -> tuple[Response, int]:
    return _refusal(413, "too_large", f"The body has at most {MAX_BODY_BYTES} bytes.")


def _credentials() -> Credentials:
    try:
        given = msgspec.json.decode(request.get_data(), type=Credentials)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f'The body is JSON, {{"username", "password"}}: {error}.') from None
    # One name has one spelling, however a keyboard composes its letters.
    given.username = unicodedata.normalize("NFKC", given.username)
    return given


def _welcome(user_id: int) -> Response:
    token = create_access_token(identity=str(user_id))
    response = jsonify(access_token=token, user_id=str(user_id))
    response.headers["Cache-Control"] = "no-store"
    return response


def _refusal(status: int, code: str, message: str) -> tuple[Response, int]:
    return jsonify(error={"code": code, "message": message}), status
