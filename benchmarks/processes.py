"""Processes under measurement: their processor time, their memory, their beginning and end."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from .results import Failed

START_SECONDS = 60.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Memory:
    """What a tree of processes occupies, in bytes."""

    pss: int  # each shared page divided among those that share it
    rss: int


def cpu_seconds(pid: int) -> float:
    """The processor time of a process and its descendants, also of those that have ended."""
    total = 0.0
    for process in _tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def busy_seconds() -> float:
    """The processor time of everything on this machine."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def memory(pid: int) -> Memory:
    """The memory of a process and its descendants."""
    pss = rss = 0
    for process in _tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess):
            full = process.memory_full_info()
            pss, rss = pss + full.pss, rss + full.rss
    return Memory(pss, rss)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_it_answers(process: subprocess.Popen[bytes], port: int) -> None:
    """Return once the server answers HTTP, whatever it says."""
    deadline = time.monotonic() + START_SECONDS
    while not _answers(port):
        if process.poll() is not None:
            raise Failed(f"the server ended with status {process.returncode}")
        if time.monotonic() > deadline:
            raise Failed(f"the server did not answer within {START_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server that leads a process group, and what is left of its group."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Whatever is started inside writes to this file what it would have written to the terminal."""
    kept = [(stream, os.dup(stream)) for stream in (1, 2)]
    with path.open("wb") as file:
        for stream, _ in kept:
            os.dup2(file.fileno(), stream)
    try:
        yield
    finally:
        for stream, copy in kept:
            os.dup2(copy, stream)
            os.close(copy)


def _tree(pid: int) -> list[psutil.Process]:
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS)
    try:
        connection.request("GET", "/")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True
