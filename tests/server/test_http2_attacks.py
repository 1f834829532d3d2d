"""What a hostile HTTP/2 client can do to the others, and to the memory of the server.

Each attack runs for a while from several connections that come back when they are closed.
Meanwhile another client asks for something small, again and again, and the longest it waited
is what counts.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from llm_api.limits import Limits
from llm_api.server.http2.preface import PREFACE

from ..support.http2 import Http2Client
from ..support.raw import Raw
from ..support.scripted import SECONDS
from .conftest import Serve

_ROOT = Path(__file__).parents[2]
_ATTACKERS = 4
_ATTACK_SECONDS = 1.0
_WORST_SECONDS = 0.2
_GROWTH_BYTES = 16 << 20
_STREAMS = range(1, 4000, 2)

_START = PREFACE + SettingsFrame(0).serialize()


class Victim:
    """A server process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.process = process
        self.port = int(process.stdout.readline())
        with Raw(self.port) as first:  # what the first request loads is no growth
            first.request("/health")
            first.response()
        with Http2Client(self.port) as client:
            client.get("/health")

    def memory(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1]) << 10


@contextlib.contextmanager
def victim(*, capacity: int = 1_000_000, **limits: float) -> Iterator[Victim]:
    settings = json.dumps({"capacity": capacity, **limits})
    command = [sys.executable, "-m", "tests.support.http2_server", settings]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=_ROOT, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield Victim(process)
        finally:
            process.kill()


def request(stream: int, path: str = "/predict?prompt=x", *, ends: bool = True) -> Frame:
    fields = {":method": "GET", ":scheme": "http", ":authority": "test", ":path": path}
    flags = ["END_HEADERS", "END_STREAM"] if ends else ["END_HEADERS"]
    return HeadersFrame(stream, Encoder().encode(list(fields.items())), flags=flags)


def rapid_reset() -> Iterator[Frame]:
    for stream in _STREAMS:
        yield request(stream)
        yield RstStreamFrame(stream, ErrorCodes.CANCEL)


def made_you_reset_by_data() -> Iterator[Frame]:
    for stream in _STREAMS:
        yield request(stream)
        yield DataFrame(stream, b"after the end")


def made_you_reset_by_windows() -> Iterator[Frame]:
    for stream in _STREAMS:
        yield request(stream)
        yield WindowUpdateFrame(stream, (1 << 31) - 1)


def too_many_streams() -> Iterator[Frame]:
    for stream in _STREAMS:
        yield request(stream)


def late_trailers() -> Iterator[Frame]:
    yield request(1)
    yield RstStreamFrame(1)
    for _ in range(4000):
        yield request(1)


def late_data() -> Iterator[Frame]:
    yield request(1)
    yield RstStreamFrame(1)
    for _ in range(4000):
        yield DataFrame(1, b"x" * 300)


def continuations(size: int) -> Iterator[Frame]:
    yield HeadersFrame(1, b"")
    for _ in range(100_000 // (size + 1)):
        yield ContinuationFrame(1, b"\x00" * size)


def header_bomb() -> Iterator[Frame]:
    fields = [("x-bomb", "x" * 4000)]
    encoder = Encoder()
    first = encoder.encode(fields, huffman=False)
    again = encoder.encode(fields)
    assert len(again) == 1
    for stream in _STREAMS[:50]:
        yield HeadersFrame(stream, first + again * 12_000, flags=["END_HEADERS", "END_STREAM"])


def huffman_bombs() -> Iterator[Frame]:
    fields = {":method": "GET", ":scheme": "http", ":authority": "test", ":path": "/health"}
    encoder = Encoder()
    encoder.header_table_size = 0
    block = encoder.encode([*fields.items(), ("x-long", "~" * 8000)])
    for stream in _STREAMS[:200]:
        yield HeadersFrame(stream, block, flags=["END_HEADERS", "END_STREAM"])


def settings() -> Iterator[Frame]:
    for n in range(4000):
        yield SettingsFrame(0, {SettingCodes.INITIAL_WINDOW_SIZE: n})


def encoder_table() -> Iterator[Frame]:
    yield SettingsFrame(0, {SettingCodes.HEADER_TABLE_SIZE: (1 << 32) - 1})
    for stream in _STREAMS:
        yield request(stream, f"/{stream}")


def body_in_crumbs() -> Iterator[Frame]:
    yield request(1, ends=False)
    for _ in range(10_000):
        yield DataFrame(1, b"x")


_FLOODS: dict[str, Callable[[], Iterator[Frame]]] = {
    "rapid reset": rapid_reset,
    "made you reset, by data": made_you_reset_by_data,
    "made you reset, by windows": made_you_reset_by_windows,
    "too many streams": too_many_streams,
    "late trailers": late_trailers,
    "late data": late_data,
    "empty CONTINUATION": lambda: continuations(0),
    "long CONTINUATION": lambda: continuations(16_384),
    "header bomb": header_bomb,
    "Huffman bombs": huffman_bombs,
    "PING": lambda: (PingFrame(0, b"12345678") for _ in range(4000)),
    "SETTINGS": settings,
    "table for the encoder": encoder_table,
    "PRIORITY": lambda: (PriorityFrame(n, 0, 1) for n in range(1, 8000, 2)),
    "empty DATA": lambda: (request(1, ends=False) if n == 0 else DataFrame(1) for n in range(4000)),
    "WINDOW_UPDATE": lambda: (WindowUpdateFrame(0, 1) for _ in range(4000)),
    "unknown frames": lambda: (UnknownFrame(0) for _ in range(4000)),
    "body in crumbs": body_in_crumbs,
}
_ENDURED = {"Huffman bombs", "table for the encoder"}
"""Nothing in these is against the rules."""


class UnknownFrame(Frame):
    type = 0xFA

    def serialize_body(self) -> bytes:
        return b""


class Attack:
    """Sends the same on every connection, and connects again when that is over."""

    def __init__(self, port: int, data: bytes) -> None:
        self._port = port
        self._data = data
        self._until = time.monotonic() + _ATTACK_SECONDS
        self.goodbyes = 0
        self.connections = 0
        self._threads = [threading.Thread(target=self._run) for _ in range(_ATTACKERS)]
        for thread in self._threads:
            thread.start()

    @property
    def is_on(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        while time.monotonic() < self._until:
            self.connections += 1
            with contextlib.suppress(OSError):
                self._connect()

    def _connect(self) -> None:
        with socket.create_connection(("127.0.0.1", self._port), SECONDS) as connection:
            connection.settimeout(SECONDS)
            received = bytearray()
            with contextlib.suppress(OSError):
                connection.sendall(self._data)
                while piece := connection.recv(1 << 16):
                    received += piece
            # Error code of a GOAWAY frame: what follows its header and the last stream.
            if re.search(rb"\x07\x00\x00\x00\x00\x00....\x00\x00\x00\x0b", received, re.DOTALL):
                self.goodbyes += 1


def worst_wait(port: int, start_attack: Callable[[], Callable[[], bool]]) -> float:
    """Ask over both protocols while something goes on; return the longest wait in seconds."""
    worst = 0.0
    with Raw(port) as http1, Http2Client(port) as http2:
        http2.get("/health")
        is_on = start_attack()
        while is_on():
            start = time.monotonic()
            http1.request("/health")
            assert http1.response().status == 200
            between = time.monotonic()
            assert http2.get("/health").status == 200
            worst = max(worst, between - start, time.monotonic() - between)
            time.sleep(0.002)
    return worst


@pytest.mark.parametrize("name", _FLOODS)
def test_flood(name: str) -> None:
    data = _START + b"".join(frame.serialize() for frame in _FLOODS[name]())
    with victim() as server:
        before = server.memory()
        attacks: list[Attack] = []

        def start() -> Callable[[], bool]:
            attacks.append(Attack(server.port, data))
            return lambda: attacks[0].is_on

        worst = worst_wait(server.port, start)
        growth = server.memory() - before
    print(f"{name}: {worst * 1000:.0f} ms, {growth / (1 << 20):+.1f} MB")
    assert worst <= _WORST_SECONDS
    assert growth <= _GROWTH_BYTES
    assert attacks[0].goodbyes > 0 or name in _ENDURED


def give_up(client: Http2Client) -> None:
    client.reset(client.request("/predict?prompt=x"))


def overflow_window(client: Http2Client) -> None:
    client.send(WindowUpdateFrame(client.request("/predict?prompt=x"), (1 << 31) - 1))


def send_after_the_end(client: Http2Client) -> None:
    client.send(DataFrame(client.request("/predict?prompt=x"), b"x"))


@pytest.mark.parametrize("lose_one", [give_up, overflow_window, send_after_the_end])
def test_allowance_of_resets(serve: Serve, lose_one: Callable[[Http2Client], None]) -> None:
    served = serve(limits=Limits(resets=5, resets_per_second=0.001))
    with Http2Client(served.port) as client:
        for _ in range(5):
            lose_one(client)
        assert client.get("/health").status == 200
        lose_one(client)
        client.wait_closed()
        assert [code for _, code in client.goaways] == [ErrorCodes.ENHANCE_YOUR_CALM]


def test_allowances_come_back(serve: Serve) -> None:
    served = serve(limits=Limits(resets=1, resets_per_second=200, idle_frames=10))
    with Http2Client(served.port) as client:
        for _ in range(10):
            give_up(client)
            time.sleep(0.06)
        assert client.get("/health").status == 200


def test_windows_may_be_opened_for_each_frame_sent(serve: Serve) -> None:
    served = serve(limits=Limits(idle_frames=10, idle_frames_per_second=0.001))
    with Http2Client(served.port) as client:
        stream = client.request("/predict?prompt=x")
        job = served.engine.next_job()
        for n in range(1, 100):
            job.say("x")
            client.wait(lambda n=n: len(client.answers[stream].body) == n)
            client.h2.increment_flow_control_window(1)
            client.h2.increment_flow_control_window(1, stream)
            client.flush()
        job.end()
        assert client.answer(stream).is_whole


def test_windows_that_stay_shut() -> None:
    """Streams of which nothing is read, as many as a client may have, on many connections."""
    limits = Limits()
    with victim(capacity=20, write_stall=1.0) as server, contextlib.ExitStack() as stack:
        before = server.memory()
        clients = [stack.enter_context(Http2Client(server.port, window=0)) for _ in range(20)]

        def send_all() -> None:
            for client in clients:
                for stream in range(1, 2 * limits.streams, 2):
                    client.send(request(stream))

        def start() -> Callable[[], bool]:
            threading.Thread(target=send_all).start()
            stop = time.monotonic() + 3
            return lambda: time.monotonic() < stop

        worst = worst_wait(server.port, start)
        growth = server.memory() - before
        for client in clients:
            assert _count_resets(client.socket, limits.streams) == limits.streams
    print(f"{worst * 1000:.0f} ms, {growth / (1 << 20):+.1f} MB")
    assert worst <= _WORST_SECONDS
    assert growth <= _GROWTH_BYTES


def _count_resets(connection: socket.socket, expected: int) -> int:
    reset = re.compile(rb"\x00\x00\x04\x03\x00....\x00\x00\x00\x02", re.DOTALL)
    received = bytearray()
    while len(reset.findall(received)) < expected and (piece := connection.recv(1 << 16)):
        received += piece
    return len(reset.findall(received))
