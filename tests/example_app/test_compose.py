"""docker-compose.yml, without Docker: what its services are told, and the command of its app."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml

from tests.servers import REPOSITORY, PostgresServer, wait_until

SERVICES: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())[
    "services"
]
APP, DATABASE = SERVICES["app"], SERVICES["database"]
SECRET = "a secret of the tests, long enough"
START_SECONDS, STOP_SECONDS = 60.0, 30.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=START_SECONDS):
            return True
    except OSError:
        return False


def command_of(service: Mapping[str, Any]) -> str:
    """What the service's shell is told to do."""
    found = re.fullmatch(r'sh -c "(.*)"', service["command"])
    assert found is not None
    return found[1]


def test_both_services_share_the_password() -> None:
    address = APP["environment"]["DATABASE_URL"]
    assert address == "postgresql://postgres:${SECRET}@database:5432/postgres"
    assert DATABASE["environment"]["POSTGRES_PASSWORD"] == "${SECRET}"
    assert APP["environment"]["JWT_SECRET_KEY"].startswith("${SECRET:?")
    assert APP["depends_on"] == {"database": {"condition": "service_healthy"}}


def test_the_image_has_what_the_app_needs() -> None:
    steps = APP["build"]["dockerfile_inline"]
    assert "pip install --no-cache-dir --editable '.[example]'" in steps
    assert (REPOSITORY / "setup.py").is_file()


def test_the_command_of_the_app_migrates_and_serves_two_workers(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    env = {
        **{name: text for name, text in os.environ.items() if not name.startswith("E2EMSG_")},
        **APP["environment"],
        "DATABASE_URL": postgres.create_database(),
        "JWT_SECRET_KEY": SECRET,
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    shell = shutil.which("sh")
    assert shell is not None
    log = tmp_path / "log"
    with log.open("wb") as output:
        app = subprocess.Popen(
            [shell, "-c", command_of(APP)], cwd=REPOSITORY, env=env, stdout=output, stderr=output
        )
    try:
        wait_until(lambda: answers(url), START_SECONDS, log.read_text)
        demo = [sys.executable, "-m", "example_app.demo", "--url", url]
        done = subprocess.run(
            demo, cwd=REPOSITORY, env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        app.send_signal(signal.SIGTERM)
        assert app.wait(STOP_SECONDS) == 0, log.read_text()
    assert log.read_text().count("Booting worker") == int(APP["environment"]["WEB_CONCURRENCY"])
