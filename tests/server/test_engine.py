"""The server on the real engine, with a scripted model in it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from llm_api import Engine

from ..support.raw import Raw
from ..support.scripted import SECONDS
from .conftest import Start

_CLIENTS = 32


def wait_for(engine: Engine, **wanted: int) -> None:
    """Wait until the engine's state is the one wanted; it changes with each of its steps."""
    deadline = time.monotonic() + SECONDS
    while not wanted.items() <= engine.stats().items():
        assert time.monotonic() < deadline, (wanted, engine.stats())
        time.sleep(0.001)


def test_clients_at_once_are_not_mixed_up(start: Start) -> None:
    _, served = start("delay=1ms;echo", parallel=4, queue=_CLIENTS)

    def ask(number: int) -> tuple[str, bool]:
        with Raw(served.port) as client:
            client.request("/predict", {"prompt": f"client {number}, " * 5, "temperature": 0})
            reply = client.response()
            return reply.text, reply.is_whole

    with ThreadPoolExecutor(_CLIENTS) as pool:
        replies = list(pool.map(ask, range(_CLIENTS)))
    assert replies == [(f"client {number}, " * 5, True) for number in range(_CLIENTS)]


def test_leaving_while_tokens_are_made(start: Start) -> None:
    engine, served = start("delay=5ms;hash", context=100_000)
    with Raw(served.port) as client:
        client.request("/predict", {"prompt": "x"})
        client.read_until(b"\r\n\r\n")
    since = time.monotonic()
    wait_for(engine, cancelled=1, running=0, cells_used=0)
    assert time.monotonic() - since < 0.25


def test_leaving_the_queue_and_the_middle_of_a_prompt(start: Start) -> None:
    engine, served = start("delay=20ms;batch=8;hash", context=10_000, parallel=1)
    with Raw(served.port) as running, Raw(served.port) as waiting:
        running.request("/predict", {"prompt": "x" * 5000})
        wait_for(engine, running=1)
        waiting.request("/predict", {"prompt": "y"})
        wait_for(engine, running=1, waiting=1)
        waiting.close()
        wait_for(engine, running=1, waiting=0, cancelled=1)
        running.close()
        since = time.monotonic()
        wait_for(engine, running=0, cancelled=2)
        assert time.monotonic() - since < 0.25


def test_fault_in_the_middle_of_a_reply(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_API_FAULT", "decode:20")
    _, served = start("delay=1ms;hash")
    with Raw(served.port) as client:
        client.request("/predict", {"prompt": "x"})
        reply = client.response()
        assert (reply.status, reply.is_whole) == (200, False)
        assert reply.body
    with Raw(served.port) as client:
        client.request("/predict", {"prompt": "x", "tokens": 30})
        assert client.response().is_whole, "a failed decode is over with its requests"


def test_fault_before_the_first_text(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_API_FAULT", "decode:1")
    _, served = start("echo")
    with Raw(served.port) as client:
        client.request("/predict", {"prompt": "x"})
        reply = client.response()
        assert (reply.status, reply.text) == (500, "inference failed\n")


def test_time_limit(start: Start) -> None:
    _, served = start("delay=20ms;batch=8;hash")
    with Raw(served.port) as client:
        client.request("/predict", {"prompt": "x" * 400, "maxTime": 0.1})
        assert client.response().status == 503
        client.request("/predict", {"prompt": "x", "maxTime": 0.3})
        reply = client.response()
        assert (reply.status, reply.is_whole) == (200, True)
        assert reply.body
