"""Many clients at once: none is mixed up with another, slowed down by it or cut with it."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from llm_api.errors import PromptTooLongError
from llm_api.limits import Limits

from ..support.raw import Raw
from ..support.scripted import SECONDS, Job, ScriptedEngine
from ..support.serving import Served
from .conftest import Serve

_CLIENTS = 32


def test_clients_at_once_are_not_mixed_up(served: Served) -> None:
    """All are in progress before the first gets text; then all get theirs in turn."""

    def ask(number: int) -> str:
        with Raw(served.port) as client:
            client.request("/predict", {"prompt": f"client {number}"})
            reply = client.response()
            assert reply.is_whole
            return reply.text

    with ThreadPoolExecutor(_CLIENTS) as pool:
        replies = [pool.submit(ask, number) for number in range(_CLIENTS)]
        jobs = [served.engine.next_job() for _ in range(_CLIENTS)]
        for part in range(10):
            for job in jobs:
                job.say(f"<{job.text} {part}>")
        for job in jobs:
            job.end()
        for number, reply in enumerate(replies):
            expected = "".join(f"<client {number} {part}>" for part in range(10))
            assert reply.result(SECONDS) == expected


class Flood:
    """Text for one job without end, until it is cancelled."""

    def __init__(self, job: Job, pause: float) -> None:
        self._job = job
        self._pause = pause
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._job.cancelled.wait(self._pause):
            self._job.say("x" * 4096)

    def join(self) -> None:
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()


@pytest.mark.parametrize(
    ("limits", "pause"),
    [
        (Limits(unsent=256 << 10, write_stall=60), 0.0002),
        (Limits(unsent=1 << 30, write_stall=0.3), 0.001),
    ],
    ids=["too much unsent", "nothing taken for too long"],
)
def test_reader_that_stops_reading_loses_its_stream_alone(
    serve: Serve, limits: Limits, pause: float
) -> None:
    served = serve(limits=limits)
    with Raw(served.port, receive_buffer=4096) as stuck, Raw(served.port) as reader:
        stuck.request("/predict", {"prompt": "stuck"})
        stuck_job = served.engine.next_job()
        flood = Flood(stuck_job, pause)
        reader.request("/predict", {"prompt": "reader"})
        job = served.engine.next_job()
        worst = 0.0
        while not stuck_job.cancelled.is_set():
            start = time.monotonic()
            job.say("tick")
            reader.read_until(b"tick\r\n")
            worst = max(worst, time.monotonic() - start)
        job.end("stop", None, "tock")
        assert reader.read_until(b"0\r\n\r\n").endswith(b"tock\r\n0\r\n\r\n")
        flood.join()
        assert worst < 1
        assert not stuck.read_all().endswith(b"0\r\n\r\n")


def test_slow_reader_gets_everything(serve: Serve) -> None:
    """As long as it reads at all, even long after the generation has ended."""
    served = serve(limits=Limits(unsent=1 << 30, write_stall=2))
    size = 8 << 20
    with Raw(served.port, receive_buffer=4096) as slow:
        slow.request("/predict", {"prompt": "x"})
        job = served.engine.next_job()
        for _ in range(size // 65536):
            job.say("x" * 65536)
        job.end()
        assert job.ended.wait(SECONDS)
        reply = slow.response()
        assert (len(reply.body), reply.is_whole) == (size, True)
        slow.request("/health")
        assert slow.response().status == 200


def test_reader_that_stops_after_the_end_is_cut_too(serve: Serve) -> None:
    served = serve(limits=Limits(unsent=1 << 30, write_stall=0.2))
    with Raw(served.port, receive_buffer=4096) as stuck:
        stuck.request("/predict", {"prompt": "x"})
        job = served.engine.next_job()
        job.say("x" * (16 << 20))
        job.end()
        served.run(served.app.generations.wait_for_all)
        assert not stuck.read_all().endswith(b"0\r\n\r\n")


def test_sender_that_reads_no_replies_is_cut(serve: Serve) -> None:
    served = serve(limits=Limits(write_stall=0.2))
    request = b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"
    with Raw(served.port, receive_buffer=4096) as client, pytest.raises(ConnectionError):
        client.send_forever(request * 1000)


def test_full_queue_is_told_and_recovers(serve: Serve) -> None:
    served = serve(ScriptedEngine(capacity=1))
    with Raw(served.port) as first, Raw(served.port) as second:
        first.request("/predict", {"prompt": "a"})
        job = served.engine.next_job()
        second.request("/predict", {"prompt": "b"})
        reply = second.response()
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        job.end("stop", None, "done")
        assert first.response().text == "done"
        second.request("/predict", {"prompt": "b"})
        served.engine.next_job().end("stop", None, "done")
        assert second.response().text == "done"


class SlowTokenizer(ScriptedEngine):
    """Holds the start of long prompts, as turning them into tokens does, until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def start(self, prompt: Any, options: Any, listener: Any) -> int:
        if len(prompt) > 1000:
            self.entered.set()
            assert self.go_on.wait(SECONDS)
        return super().start(prompt, options, listener)


def test_long_prompt_holds_nobody_up(serve: Serve) -> None:
    engine = SlowTokenizer()
    served = serve(engine)
    with Raw(served.port) as long, Raw(served.port) as short:
        long.request("/predict", {"prompt": "x" * 100_000})
        assert engine.entered.wait(SECONDS)
        short.request("/predict", {"prompt": "short"})
        served.engine.next_job().end("stop", None, "short")
        assert short.response().text == "short"
        engine.go_on.set()
        served.engine.next_job().end("stop", None, "long")
        assert long.response().text == "long"


def test_long_prompt_that_is_refused_says_why(serve: Serve) -> None:
    served = serve()
    served.engine.refusal = PromptTooLongError(25_000, 512)
    with Raw(served.port) as client:
        client.request("/predict", {"prompt": "x" * 100_000})
        reply = client.response()
        assert reply.status == 400
        assert "25000 tokens and the context 512" in reply.text
        served.engine.refusal = None
        client.request("/predict", {"prompt": "x"})
        served.engine.next_job().end("stop", None, "ok")
        assert client.response().text == "ok"


def test_client_that_leaves_while_its_prompt_becomes_tokens_is_cancelled(serve: Serve) -> None:
    engine = SlowTokenizer()
    served = serve(engine)
    with Raw(served.port) as client:
        client.request("/predict", {"prompt": "x" * 100_000})
        assert engine.entered.wait(SECONDS)
    engine.go_on.set()
    assert served.engine.next_job().cancelled.wait(SECONDS)


def test_long_prompts_of_clients_that_left_are_not_tokenized(serve: Serve) -> None:
    """Two threads do that; whoever leaves while waiting for one costs nothing."""
    engine = SlowTokenizer()
    served = serve(engine)
    clients = [Raw(served.port) for _ in range(6)]
    for client in clients:
        client.request("/predict", {"prompt": "x" * 100_000})
    served.run(lambda: wait_for_streams(served, 6))
    for client in clients:
        client.close()
    served.run(lambda: wait_for_streams(served, 2))
    engine.go_on.set()
    for _ in range(2):
        assert served.engine.next_job().cancelled.wait(SECONDS)
    served.run(served.app.generations.wait_for_all)
    assert served.engine.jobs.empty()


async def wait_for_streams(served: Served, count: int) -> None:
    async with asyncio.timeout(SECONDS):
        while len(served.app.generations.running) != count:
            await asyncio.sleep(0.01)
