"""Sign-up and login: `POST /api/register` and `POST /api/login`; and who is who.

Both take `{"username", "password"}` and answer `{"access_token", "user_id"}`, and so does
`POST /api/token` in exchange for a token that has not ended yet. A refusal has the shape of every
other error under `/api`: `{"error": {"code", "message"}}`.
"""

import re
import unicodedata

import msgspec
from flask import Blueprint, Response, jsonify, request
from flask_jwt_extended import create_access_token, get_jwt_identity, verify_jwt_in_request
from flask_jwt_extended.exceptions import JWTExtendedException
from jwt import PyJWTError
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

from . import passwords
from .models import User, db

MAX_BODY_BYTES = 4096
USERNAME = re.compile(r"[\w.@+-]{1,80}")
PASSWORD_LENGTHS = range(8, 129)
USER_ID = re.compile(r"[1-9]\d{0,17}", re.ASCII)
MAX_IDS = 100

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


@bp.post("/token")
def renew() -> Response:
    """A fresh token in exchange for a valid one, so that nobody is logged out while they talk."""
    verify_jwt_in_request()
    return _welcome(int(get_jwt_identity()))


@bp.get("/users/<username>")
def user_named(username: str) -> tuple[Response, int]:
    """Somebody to write to, by name: {"user_id", "username"}."""
    verify_jwt_in_request()
    name = _normal(username)
    row = db.session.execute(select(User.id, User.username).where(User.username == name)).first()
    if row is None:
        return _refusal(404, "not_found", "Nobody has this username.")
    return jsonify(user_id=str(row.id), username=row.username), 200


@bp.get("/users")
def users_with_ids() -> tuple[Response, int]:
    """The names of up to 100 users: `?ids=1,2`. Ids that nobody has are left out."""
    verify_jwt_in_request()
    ids = request.args.get("ids", "").split(",")
    if len(ids) > MAX_IDS:
        return _refusal(400, "bad_request", f"`ids` names at most {MAX_IDS} users.")
    wanted = [int(each) for each in ids if USER_ID.fullmatch(each)]
    rows = db.session.execute(select(User.id, User.username).where(User.id.in_(wanted)))
    return jsonify([{"user_id": str(row.id), "username": row.username} for row in rows]), 200


@bp.before_request
def _limit_body() -> None:
    request.max_content_length = MAX_BODY_BYTES


@bp.errorhandler(BadRequest)
def _malformed(error: BadRequest) -> tuple[Response, int]:
    return _refusal(400, "bad_request", error.description or "")


@bp.errorhandler(JWTExtendedException)
@bp.errorhandler(PyJWTError)
def _unauthorized(error: Exception) -> tuple[Response, int]:
    return _refusal(401, "unauthorized", "Log in first.")


@bp.errorhandler(RequestEntityTooLarge)
def _too_large(error: RequestEntityTooLarge) -> tuple[Response, int]:
    return _refusal(413, "too_large", f"The body has at most {MAX_BODY_BYTES} bytes.")


def _credentials() -> Credentials:
    try:
        given = msgspec.json.decode(request.get_data(), type=Credentials)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f'The body is JSON, {{"username", "password"}}: {error}.') from None
    given.username = _normal(given.username)
    return given


def _normal(username: str) -> str:
    """One name has one spelling, however a keyboard composes its letters."""
    return unicodedata.normalize("NFKC", username)


def _welcome(user_id: int) -> Response:
    token = create_access_token(identity=str(user_id))
    response = jsonify(access_token=token, user_id=str(user_id))
    response.headers["Cache-Control"] = "no-store"
    return response


def _refusal(status: int, code: str, message: str) -> tuple[Response, int]:
    return jsonify(error={"code": code, "message": message}), status
