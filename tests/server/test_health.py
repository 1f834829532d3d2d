"""What /health says, from the binding of the address to the end."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from h2.errors import ErrorCodes

from llm_api import Engine
from llm_api.limits import Limits

from ..support.http2 import Http2Client
from ..support.raw import Raw
from ..support.scripted import SECONDS
from ..support.serving import PlainTemplate, Served, make_settings
from .test_lifecycle import process

_ROOT = Path(__file__).parents[2]


def ask(client: Raw) -> tuple[int, object]:
    client.request("/health")
    response = client.response()
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    return response.status, json.loads(response.body)


def test_well(served: Served, client: Raw) -> None:
    assert ask(client) == (200, {"status": "ok"})


def test_loading() -> None:
    with process(load="held") as server, Raw(server.port) as client:
        assert ask(client) == (503, {"status": "loading", "progress": 0.0})
        server.tell("0.25")
        while ask(client) != (503, {"status": "loading", "progress": 0.25}):
            pass
        for path, fields in {"/predict": {"prompt": "x"}, "/chat": {"messages": "x"}}.items():
            client.request(path, fields)
            reply = client.response()
            assert (reply.status, reply.text) == (503, "the model is being loaded\n")
            assert reply.headers["retry-after"] == "1"
            assert reply.headers["content-type"] == "text/plain; charset=utf-8"
        client.request("/nothing")
        assert client.response().status == 404
        server.tell("done")
        server.read_log("ready$")
        assert ask(client) == (200, {"status": "ok"})
        client.request("/predict", {"prompt": "x"})
        client.read_until(b"begun ")
        server.tell("and over")
        client.read_until(b"and over")


def test_a_load_that_fails_ends_all() -> None:
    with process(load="held") as server, Raw(server.port) as client:
        assert ask(client)[0] == 503
        server.tell("no such file")
        assert server.exit_status() == 1
        assert client.read_all() == b""
        server.read_log("ModelLoadError: no such file")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("load", ["held", "deaf"])
def test_a_signal_stops_the_load(load: str, number: int) -> None:
    with process(load=load) as server, Raw(server.port) as client:  # type: ignore[arg-type]
        assert ask(client)[0] == 503
        server.signal(number)
        assert server.exit_status() == 0
        server.read_log("shutting down")
        assert server.process.stderr is not None
        rest = server.process.stderr.read()
        assert ("left behind" in rest) == (load == "deaf")
        assert "Traceback" not in rest


def test_draining() -> None:
    with process() as server, Raw(server.port) as running, Raw(server.port) as watching:
        assert ask(watching) == (200, {"status": "ok"})
        running.request("/predict", {"prompt": "x"})
        running.read_until(b"begun ")
        server.signal(signal.SIGTERM)
        server.read_log("shutting down")
        assert ask(watching) == (503, {"status": "draining"})
        server.tell("over")
        running.read_until(b"0\r\n\r\n")
        assert server.exit_status() == 0


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_bar_on_a_terminal_and_nowhere_else(is_terminal: bool) -> None:
    outside, inside = pty.openpty() if is_terminal else os.pipe()
    if is_terminal:
        termios.tcsetwinsize(inside, (24, 80))
    wanted = json.dumps({"shutdown_timeout": 1, "address": "127.0.0.1:0", "load": "held"})
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.scripted_server", wanted],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stderr=inside,
    ) as running:
        os.close(inside)
        seen = ""

        def read_until(pattern: str) -> None:
            nonlocal seen
            while not re.search(pattern, seen):
                seen += os.read(outside, 65536).decode()

        assert running.stdin is not None
        try:
            read_until("listening on")
            running.stdin.write(b"0.5\n")
            running.stdin.flush()
            if is_terminal:
                read_until(r"loading the model: +50%\|")
            running.stdin.write(b"done\n")
            running.stdin.flush()
            read_until("ready\r?\n")
            assert ("%" in seen) == is_terminal
            assert re.search(r"^\S+ \S+ I llm_api\.server: listening", seen, re.MULTILINE)
            running.terminate()
            assert running.wait(SECONDS) == 0
        finally:
            running.kill()
            os.close(outside)


class Gate:
    """A named pipe that holds the making of contexts up until the test lets each of them pass."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)

    def open(self) -> None:
        with self.path.open("wb"):
            pass


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "gate")


Scripted = tuple[Engine, Served, Gate]


@contextmanager
def started(gate: Gate, spec: str, **sizes: int) -> Iterator[Scripted]:
    """A server on a scripted model, whose first context is let pass."""
    opener = threading.Thread(target=gate.open)
    opener.start()
    engine = Engine.scripted(f"gate={gate.path};{spec}", **sizes)
    opener.join(SECONDS)
    served = Served(engine, make_settings(), PlainTemplate(), Limits())
    try:
        yield engine, served, gate
    finally:
        served.close()
        engine.close()


@pytest.fixture
def faulty(
    request: pytest.FixtureRequest, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scripted]:
    """One with the faults of the parameter."""
    monkeypatch.setenv("LLM_API_FAULT", request.param)
    with started(gate, "delay=1ms;hash", parallel=1, queue=4) as scripted:
        yield scripted


@pytest.mark.parametrize("faulty", ["panic:10"], indirect=True)
def test_rebuilding(faulty: Scripted) -> None:
    """Broken replies break, who comes meanwhile waits, and then all is well."""
    engine, served, gate = faulty
    with Raw(served.port) as client, Raw(served.port) as waiting, Raw(served.port) as watching:
        client.request("/predict", {"prompt": "x"})
        reply = client.response()
        assert (reply.status, reply.is_whole, len(reply.body)) == (200, False, 9)
        assert ask(watching) == (503, {"status": "rebuilding"})
        assert engine.state == "rebuilding"
        waiting.request("/predict", {"prompt": "x", "tokens": 5})
        gate.open()
        reply = waiting.response()
        assert (reply.status, reply.is_whole, len(reply.body)) == (200, True, 5)
        assert ask(watching) == (200, {"status": "ok"})
        assert engine.state == "ready"


def test_a_panic_at_every_stage_of_a_request(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its tokens, in its prompt, in the queue: each is told as far as it can be."""
    monkeypatch.setenv("LLM_API_FAULT", "panic:100")
    with (
        started(gate, "delay=20ms;batch=8;hash", context=4096, parallel=2) as (engine, served, _),
        Raw(served.port) as streaming,
        Raw(served.port) as reading,
        Raw(served.port) as queued,
    ):
        streaming.request("/predict", {"prompt": "x"})
        streaming.read_until(b"\r\n\r\n")
        reading.request("/predict", {"prompt": "y" * 3000})
        queued.request("/predict", {"prompt": "z"})
        while not {"running": 2, "waiting": 1}.items() <= engine.stats().items():
            assert engine.state == "ready", "the panic came too early"
        with pytest.raises(EOFError):
            streaming.read_until(b"\r\n0\r\n\r\n")
        for client in (reading, queued):
            reply = client.response()
            assert (reply.status, reply.text) == (500, "inference failed\n")
        assert ask(queued) == (503, {"status": "rebuilding"})
        gate.open()
        queued.request("/predict", {"prompt": "z", "tokens": 2})
        assert queued.response().is_whole
        stats = engine.stats()
        assert (stats["failed"], stats["completed"], stats["cells_used"]) == (3, 1, 0)


@pytest.mark.parametrize("faulty", ["panic:10"], indirect=True)
def test_a_panic_resets_the_stream_of_http2_alone(faulty: Scripted) -> None:
    _, served, gate = faulty
    with Http2Client(served.port) as client:
        broken = client.get("/predict", {"prompt": "x"})
        assert (broken.status, broken.reset) == (200, ErrorCodes.INTERNAL_ERROR)
        assert client.get("/health").status == 503
        gate.open()
        again = client.get("/predict", {"prompt": "x", "tokens": 2})
        assert (again.status, again.reset) == (200, None)


@pytest.mark.parametrize("faulty", ["panic:10,context:2,context:3"], indirect=True)
def test_rebuilding_that_fails_is_tried_again(faulty: Scripted) -> None:
    engine, served, gate = faulty
    with Raw(served.port) as client:
        client.request("/predict", {"prompt": "x"})
        assert not client.response().is_whole
        gate.open()
    with Raw(served.port) as client:
        client.request("/predict", {"prompt": "x", "tokens": 5})
        assert client.response().is_whole
        assert engine.stats()["rebuilds"] == 3


@pytest.mark.parametrize("faulty", ["panic:10,context:2,context:3,context:4"], indirect=True)
def test_down_for_good(faulty: Scripted) -> None:
    engine, served, _ = faulty
    with Raw(served.port) as client, Raw(served.port) as watching:
        client.request("/predict", {"prompt": "x"})
        assert not client.response().is_whole
        while ask(watching) == (503, {"status": "rebuilding"}):
            pass
        assert ask(watching) == (503, {"status": "failed"})
        assert engine.state == "failed"
        watching.request("/predict", {"prompt": "x"})
        reply = watching.response()
        text = "the engine has failed; the server must be started again\n"
        assert (reply.status, reply.text) == (503, text)


def test_the_state_of_a_closed_engine() -> None:
    engine = Engine.scripted("echo")
    assert engine.state == "ready"
    engine.close()
    assert engine.state == "closed"
