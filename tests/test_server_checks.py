"""gunicorn settings that do not fit sockets: each is named, and the ones that ship are fine."""

from __future__ import annotations

from pathlib import Path

import pytest
from gunicorn.config import Config

import flask_e2emsg.gunicorn as shipped
from flask_e2emsg.config import Settings
from flask_e2emsg.doctor import load_gunicorn
from flask_e2emsg.server_checks import (
    answered_at_once,
    check_gunicorn,
    kind_of_worker,
    served_at_once,
)

GTHREAD = {"worker_class": "gthread", "threads": 200}
TLS = {"certfile": "certificate.pem", "keyfile": "key.pem"}
LOGGED = {"accesslog": "-"}


def configured(**changes: object) -> Config:
    """The settings that ship, changed."""
    cfg = Config()
    for name in shipped.__all__:
        if name in cfg.settings:
            cfg.set(name, getattr(shipped, name))
    for name, value in changes.items():
        cfg.set(name, value)
    return cfg


def problems(cfg: Config, max_connections: int | None = None) -> list[str]:
    settings = Settings(max_connections=max_connections)
    return [one.advice for one in check_gunicorn(cfg, settings) if one.is_problem]


def test_the_settings_that_ship_have_no_problem() -> None:
    assert problems(configured(**LOGGED)) == []
    assert problems(configured(**LOGGED, **GTHREAD)) == []


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"worker_class": "sync"}, "worker_class 'sync'"),
        ({"worker_class": "gevent_pywsgi"}, "worker_class 'gevent_pywsgi'"),
        ({"worker_class": "no.such.Worker"}, "worker_class 'no.such.Worker'"),
        ({"keepalive": 0}, "keepalive = 0"),
        ({"preload_app": True}, "preload_app"),
        ({"control_socket_disable": False}, "control socket"),
        ({"max_requests": 1000}, "max_requests = 1000"),
        ({"worker_connections": 1000}, "worker_connections = 1000"),
        ({"timeout": 0}, "timeout = 0"),
        ({"graceful_timeout": 0}, "graceful_timeout = 0"),
        ({"post_worker_init": Config().post_worker_init}, "no post_worker_init"),
        ({"post_worker_init": lambda worker: None}, "post_worker_init is your own"),
        ({**GTHREAD, "threads": 4}, "threads = 4: every request"),
        ({**GTHREAD, **TLS, "threads": 4}, "threads = 4: every open socket holds one"),
        ({**GTHREAD, "worker_connections": 1000}, "worker_connections = 1000"),
        ({**GTHREAD, "keepalive": 0}, "keepalive = 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bad_setting_is_named(changes: dict[str, object], named: str) -> None:
    [text] = problems(configured(**changes))
    assert named in text


@pytest.mark.parametrize(
    "atom",
    [
        "%(r)s",
        "%(q)s",
        "%(f)s",
        "%({Authorization}i)s",
        "%({sec-websocket-protocol}i)s",
        "%({cookie}i)s",
        "%({QUERY_STRING}e)s",
        "%({raw_uri}e)s",
        "%({set-cookie}o)s",
    ],
)
def test_a_log_format_that_can_hold_a_token_is_named(atom: str) -> None:
    [text] = problems(configured(**LOGGED, access_log_format=f"%(h)s {atom} %(U)s"))
    assert f"access_log_format has {atom}," in text


def test_the_default_log_format_is_named_where_a_log_is_written() -> None:
    cfg = configured(access_log_format=Config().access_log_format)
    assert problems(cfg) == []
    cfg.set("accesslog", "-")
    [text] = problems(cfg)
    assert "%(f)s %(r)s" in text


def test_room_for_nothing_but_sockets_is_named() -> None:
    [text] = problems(configured(worker_connections=2000), max_connections=2000)
    assert "E2EMSG_MAX_CONNECTIONS = 2000" in text
    [text] = problems(configured(**GTHREAD, worker_connections=2000), max_connections=2000)
    assert "Set worker_connections" in text
    [text] = problems(configured(**GTHREAD, **TLS), max_connections=200)
    assert "Set threads" in text
    assert problems(configured(worker_connections=2000), max_connections=1800) == []


def test_a_hook_of_the_host_that_calls_ours_is_fine() -> None:
    def post_worker_init(worker: object) -> None:
        shipped.prepare_worker(worker)

    assert problems(configured(post_worker_init=post_worker_init)) == []


def test_several_workers_are_worth_a_note() -> None:
    [finding] = check_gunicorn(configured(workers=4), Settings())
    assert (finding.is_problem, "E2EMSG_MAX_CONNECTIONS" in finding.advice) == (False, True)


def test_what_a_worker_serves_is_known_for_each_kind() -> None:
    assert (kind_of_worker(configured()), served_at_once(configured())) == ("gevent", 10_000)
    threads = configured(**GTHREAD)
    assert kind_of_worker(threads) == "gthread"
    assert (served_at_once(threads), answered_at_once(threads)) == (10_000, 200)
    tls = configured(**GTHREAD, **TLS)
    assert (served_at_once(tls), answered_at_once(tls)) == (200, 200)
    assert kind_of_worker(configured(worker_class="sync", threads=8)) == "gthread"


def test_a_file_is_loaded_as_gunicorn_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gunicorn.conf.py"
    path.write_text("from flask_e2emsg.gunicorn import *\nworkers = 3\nmax_requests = 7\n")
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--max-requests=5 --preload")
    cfg = load_gunicorn(str(path))
    assert (cfg.workers, cfg.max_requests, cfg.preload_app) == (3, 5, True)


def test_a_module_is_loaded_as_gunicorn_does() -> None:
    assert load_gunicorn("python:flask_e2emsg.gunicorn").worker_connections == 10_000


def test_a_file_that_gunicorn_does_not_take_ends_the_process(tmp_path: Path) -> None:
    path = tmp_path / "gunicorn.conf.py"
    path.write_text("worker_connections = 'many'\n")
    with pytest.raises(SystemExit) as ended:
        load_gunicorn(str(path))
    assert ended.value.code == 1
