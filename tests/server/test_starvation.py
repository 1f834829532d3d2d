"""A server that has run out of file descriptors, and a log that is not to be flooded."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from llm_api.server.log import Sparing

from ..support.http2 import make_certificate
from ..support.raw import Raw
from ..support.scripted import SECONDS
from .test_lifecycle import Process, process

_STARVED_SECONDS = 2.0


@pytest.mark.parametrize(("hard", "expected", "is_warned"), [(4096, 1128, False), (600, 600, True)])
def test_limit_is_raised_for_the_connections(hard: int, expected: int, is_warned: bool) -> None:
    code = (
        "import resource, logging; logging.basicConfig()\n"
        "from llm_api.server.accepting import allow_connections\n"
        f"resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard}))\n"
        "allow_connections(1000)\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"({expected}, {hard})\n"
    assert ("too few for 1000 connections" in done.stderr) == is_warned


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def leave_descriptors(pid: int, number: int) -> None:
    """Let a process open so many more."""
    highest = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1 + number,) * 2)


def is_healthy(client: Raw) -> bool:
    client.request("/health")
    return client.response().status == 200


@pytest.fixture
def server() -> Iterator[Process]:
    with process() as server:
        yield server


def test_no_descriptors_left(server: Process) -> None:
    pid = server.process.pid
    with Raw(server.port) as first:
        assert is_healthy(first)
        leave_descriptors(pid, 3)
        with ExitStack() as clients:
            served = [clients.enter_context(Raw(server.port)) for _ in range(3)]
            assert all(is_healthy(client) for client in served)
            waiting = [clients.enter_context(Raw(server.port)) for _ in range(3)]
            for client in waiting:
                client.request("/health")
            server.read_log("no connection can be accepted for now: Too many open files")
            before = cpu_seconds(pid)
            time.sleep(_STARVED_SECONDS)
            assert cpu_seconds(pid) - before < 0.1 * _STARVED_SECONDS, "it does not spin"
            assert is_healthy(first), "who is in is served"
            for client in served:
                client.close()
            assert all(client.response().status == 200 for client in waiting)
        assert is_healthy(first)
    server.signal(signal.SIGTERM)
    assert server.exit_status() == 0
    assert server.process.stderr is not None
    rest = server.process.stderr.read()
    assert "no connection" not in rest, "once is enough"
    assert "Traceback" not in rest


def test_starved_again_and_again(server: Process) -> None:
    with Raw(server.port) as first:
        assert is_healthy(first)
        leave_descriptors(server.process.pid, 1)
        client = Raw(server.port)
        for _ in range(4):
            with Raw(server.port) as waiting:
                waiting.request("/health")
                client.close()
                assert waiting.response().status == 200
                client = Raw(server.port)
        client.close()
    server.signal(signal.SIGTERM)
    assert server.exit_status() == 0
    assert server.process.stderr is not None
    assert server.process.stderr.read().count("no connection can be accepted") <= 1


def test_failed_handshakes_do_not_flood_the_log(tmp_path: Path) -> None:
    with process(certificate=make_certificate(tmp_path)) as server:
        for _ in range(50):
            with socket.create_connection(("127.0.0.1", server.port), SECONDS) as client:
                client.sendall(b"this is no TLS at all\r\n\r\n")
                with suppress(ConnectionResetError):
                    while client.recv(1000):
                        pass
        server.signal(signal.SIGTERM)
        assert server.exit_status() == 0
        assert server.process.stderr is not None
        assert 1 <= server.process.stderr.read().count("SSL Error") <= 10


def test_what_was_left_out_is_counted() -> None:
    sparing = Sparing()

    def record(at: float) -> logging.LogRecord:
        made = logging.makeLogRecord({"msg": "no %s", "args": ("good",)})
        made.created = at
        return made

    passed = [sparing.filter(record(1000 + number)) for number in range(15)]
    assert passed == [True] * 10 + [False] * 5
    late = record(1100)
    assert sparing.filter(late)
    assert late.getMessage() == "no good (5 before it are not shown)"
