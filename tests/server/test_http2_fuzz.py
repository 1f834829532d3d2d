"""Bytes that are almost HTTP/2: the server survives them, and so do its other clients."""

from __future__ import annotations

import contextlib
import logging
import random

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes
from hyperframe.frame import DataFrame, Frame, PriorityFrame, WindowUpdateFrame

from llm_api.server.http2.frames import Frame as ReadFrame
from llm_api.server.http2.frames import FrameReader

from ..support.raw import Raw
from ..support.scripted import ScriptedEngine, echo
from .conftest import Serve

_ROUNDS = 300
_FORM = ("content-type", "application/x-www-form-urlencoded")


def conversation(rng: random.Random) -> bytes:
    """Make what a client with several requests would send."""
    h2 = H2Connection(H2Configuration(validate_outbound_headers=False))
    h2.initiate_connection()
    for stream in range(1, rng.randint(2, 12), 2):
        path = rng.choice(["/predict?prompt=a+b", "/health", "/nothing", "/chat"])
        pseudo = {":method": "POST", ":scheme": "http", ":authority": "x", ":path": path}
        h2.send_headers(stream, [*pseudo.items(), _FORM])
        for _ in range(rng.randint(0, 3)):
            h2.send_data(stream, b"prompt=" + rng.randbytes(rng.randint(0, 100)))
        match rng.randint(0, 4):
            case 0:
                h2.reset_stream(stream)
            case 1:
                h2.send_headers(stream, [("x-trailer", "1")], end_stream=True)
            case 2:
                h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: rng.randint(0, 1 << 31)})
            case _:
                h2.end_stream(stream)
    return bytes(h2.data_to_send())


def mutate(rng: random.Random, data: bytes) -> bytes:
    broken = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(24, len(broken))
        match rng.randint(0, 4):
            case 0:
                broken[at] ^= 1 << rng.randint(0, 7)
            case 1:
                broken[at] = rng.choice([0, 1, 127, 255])
            case 2:
                del broken[at : at + rng.randint(1, 20)]
                broken += bytes(20)
            case 3:
                broken[at:at] = rng.randbytes(rng.randint(1, 20))
            case 4:
                broken[at:at] = _any_frame(rng).serialize()
    return bytes(broken)


def _any_frame(rng: random.Random) -> Frame:
    stream = rng.randint(1, 12)
    return rng.choice(
        [DataFrame(stream, b"x"), PriorityFrame(stream), WindowUpdateFrame(stream, 1 << 30)]
    )


def test_mutated_conversations(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    served = serve(ScriptedEngine(echo))
    rng = random.Random(7)
    with Raw(served.port) as other, caplog.at_level(logging.WARNING):
        for _ in range(_ROUNDS):
            with Raw(served.port) as client, contextlib.suppress(OSError):
                client.send(mutate(rng, conversation(rng)))
                client.socket.shutdown(1)
                client.read_all()
        other.request("/health")
        assert other.response().status == 200
        served.run(served.wait_for_no_http2)
    assert not served.engine.running
    assert [record.getMessage() for record in caplog.records] == []


def test_frames_are_the_same_in_any_pieces() -> None:
    rng = random.Random(3)
    data = conversation(rng)[24:]
    whole = list(FrameReader().feed(data))
    assert b"".join(frame.data for frame in whole) == data
    for _ in range(50):
        reader = FrameReader()
        frames: list[ReadFrame] = []
        rest = data
        while rest:
            size = rng.randint(1, 40)
            frames += reader.feed(rest[:size])
            rest = rest[size:]
        assert frames == whole
