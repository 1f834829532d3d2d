"""Starting and stopping a whole server process."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NoReturn

import pytest

from llm_api.address import Address
from llm_api.errors import EngineClosedError
from llm_api.server import ServeError, lifecycle, loading
from llm_api.server.listening import bind

from ..support.raw import Place, Raw
from ..support.scripted import SECONDS
from ..support.serving import Served, make_settings

_ROOT = Path(__file__).parents[2]


class Process:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[str] = []
        place = self.read_log(r"listening on (?:https?://127\.0\.0\.1:|unix:)(\S+)")[1]
        self.port: Place = int(place) if place.isdigit() else place

    def read_log(self, pattern: str) -> re.Match[str]:
        """Read the log up to a line that has the pattern."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(self.log)

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def exit_status(self) -> int:
        return self.process.wait(SECONDS)


@contextmanager
def process(
    shutdown_timeout: float = 30,
    certificate: tuple[Path, Path] | None = None,
    api_key_file: Path | None = None,
    address: str = "127.0.0.1:0",
    load: Literal["held", "deaf"] | None = None,
    wrapper: Sequence[str] = (),
) -> Iterator[Process]:
    settings: dict[str, object] = {"shutdown_timeout": shutdown_timeout, "address": address}
    if certificate is not None:
        settings["certificate"] = [str(path) for path in certificate]
    if api_key_file is not None:
        settings["api_key_file"] = str(api_key_file)
    if load is not None:
        settings["load"] = load
    command = [sys.executable, "-m", "tests.support.scripted_server", json.dumps(settings)]
    pipe = subprocess.PIPE
    command = [*wrapper, *command]
    with subprocess.Popen(
        command, cwd=_ROOT, stdin=pipe, stderr=pipe, text=True, close_fds=not wrapper
    ) as running:
        try:
            server = Process(running)
            if load is None:
                server.read_log("ready$")
            yield server
        finally:
            running.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_server_ends_at_once(number: int) -> None:
    with process() as server, Raw(server.port) as idle:
        idle.request("/health")
        assert idle.response().status == 200
        server.signal(number)
        assert server.exit_status() == 0
        assert idle.read_all() == b""


def test_running_replies_end_and_new_requests_are_refused() -> None:
    with process() as server, Raw(server.port) as running, Raw(server.port) as open_before:
        open_before.request("/health")
        assert open_before.response().status == 200
        running.request("/predict", {"prompt": "x"})
        running.read_until(b"begun ")
        server.signal(signal.SIGTERM)
        server.read_log("shutting down")
        open_before.request("/predict", {"prompt": "x"})
        reply = open_before.response()
        assert (reply.status, reply.text) == (503, "server is shutting down\n")
        with pytest.raises(ConnectionRefusedError):
            Raw(server.port)
        server.tell("and ended")
        assert running.read_until(b"0\r\n\r\n") == b"\r\n9\r\nand ended\r\n0\r\n\r\n"
        assert server.exit_status() == 0


def test_time_runs_out() -> None:
    with process(shutdown_timeout=0.2) as server, Raw(server.port) as running:
        running.request("/predict", {"prompt": "x"})
        running.read_until(b"begun \r\n")
        server.signal(signal.SIGTERM)
        assert running.read_all() == b"", "broken off"
        server.read_log(r"/predict 200 cancelled .*completion=1")
        assert server.exit_status() == 0


def test_second_signal_breaks_off() -> None:
    with process() as server, Raw(server.port) as running:
        running.request("/predict", {"prompt": "x"})
        running.read_until(b"begun \r\n")
        server.signal(signal.SIGTERM)
        server.read_log("shutting down")
        server.signal(signal.SIGINT)
        assert running.read_all() == b""
        assert server.exit_status() == 1


# Tornado leaves the socket that it could not bind to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_address_that_is_taken(served: Served) -> None:
    with pytest.raises(ServeError, match=rf"127\.0\.0\.1:{served.port}: .*in use"):
        bind(Address("127.0.0.1", served.port))


def test_host_that_is_not_there() -> None:
    with pytest.raises(ServeError, match=r"no-such-host\.invalid:80"):
        bind(Address("no-such-host.invalid", 80))


def test_a_server_that_cannot_be_made_stops_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelled = threading.Event()

    class Loading:
        cancel = cancelled.set

    def load(_: object) -> NoReturn:
        assert cancelled.wait(SECONDS)
        raise EngineClosedError

    def fail(*_: object) -> NoReturn:
        raise OSError("no descriptors")

    monkeypatch.setattr(loading, "Loading", Loading)
    monkeypatch.setattr(lifecycle, "_open", fail)
    with pytest.raises(OSError, match="no descriptors"):
        lifecycle.serve(make_settings(address=Address("127.0.0.1", 0)), load)
    assert cancelled.is_set()


def test_no_host_is_all_interfaces() -> None:
    sockets = bind(Address("", 0))
    try:
        families = {listening.family for listening in sockets}
        ports = {listening.getsockname()[1] for listening in sockets}
        assert socket.AF_INET in families
        assert len(ports) == 1
    finally:
        for listening in sockets:
            listening.close()
