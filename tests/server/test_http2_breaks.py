"""HTTP/2 streams that end before their time, from either side, and those beside them."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import GoAwayFrame

from llm_api.limits import Limits
from llm_api.server.http2 import Http2Connection

from ..support.http2 import Http2Client
from ..support.scripted import SECONDS, Job
from ..support.serving import Served
from .conftest import Serve

_NOTICED_SECONDS = 0.25


@pytest.fixture
def http2(served: Served) -> Iterator[Http2Client]:
    with Http2Client(served.port) as client:
        yield client


def begin(served: Served, client: Http2Client) -> tuple[int, Job]:
    stream = client.request("/predict?prompt=x")
    job = served.engine.next_job()
    job.say("so far")
    client.wait(lambda: client.answers[stream].text == "so far")
    return stream, job


def assert_noticed(job: Job) -> None:
    start = time.monotonic()
    assert job.cancelled.wait(SECONDS)
    assert time.monotonic() - start < _NOTICED_SECONDS


def test_failure_resets_the_stream_alone(served: Served, http2: Http2Client) -> None:
    broken, broken_job = begin(served, http2)
    whole, whole_job = begin(served, http2)
    broken_job.fail()
    answer = http2.answer(broken)
    assert (answer.text, answer.is_whole) == ("so far", False)
    assert answer.reset == ErrorCodes.INTERNAL_ERROR
    whole_job.end("stop", None, " and on")
    assert http2.answer(whole).text == "so far and on"
    assert not http2.goaways


def test_text_before_a_failure_in_one_batch_is_sent(served: Served, http2: Http2Client) -> None:
    stream = http2.request("/predict?prompt=x")
    served.engine.next_job().end("error", "decode failed", "so far")
    answer = http2.answer(stream)
    assert (answer.text, answer.reset) == ("so far", ErrorCodes.INTERNAL_ERROR)


def test_failure_before_the_first_text_is_a_status(served: Served, http2: Http2Client) -> None:
    stream = http2.request("/predict?prompt=x")
    served.engine.next_job().fail()
    assert (http2.answer(stream).status, http2.answers[stream].is_whole) == (500, True)


def test_exit_code_of_curl(served: Served) -> None:
    url = f"http://127.0.0.1:{served.port}/predict?prompt=x"
    command = ["curl", "-s", "-N", "--http2-prior-knowledge", url]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as curl:
        assert curl.stdout is not None
        job = served.engine.next_job()
        job.say("so far")
        assert curl.stdout.read(6) == b"so far"
        job.fail()
        curl.communicate(timeout=SECONDS)
    assert curl.returncode == 92


class TestLeaving:
    def test_reset_before_the_first_text(self, served: Served, http2: Http2Client) -> None:
        stream = http2.request("/predict?prompt=x")
        job = served.engine.next_job()
        http2.reset(stream)
        assert_noticed(job)

    def test_reset_between_tokens(self, served: Served, http2: Http2Client) -> None:
        stream, job = begin(served, http2)
        other, other_job = begin(served, http2)
        http2.reset(stream)
        assert_noticed(job)
        other_job.end("stop", None, "!")
        assert http2.answer(other).text == "so far!"

    def test_reset_of_a_stream_that_is_blocked(self, served: Served) -> None:
        with Http2Client(served.port, window=0) as client:
            stream = client.request("/predict?prompt=x")
            job = served.engine.next_job()
            job.say("never read")
            client.wait(lambda: client.answers[stream].status == 200)
            client.reset(stream)
            assert_noticed(job)

    def test_reset_within_the_request(self, served: Served, http2: Http2Client) -> None:
        fields = http2.fields("/predict", "POST", content_type="application/x-www-form-urlencoded")
        stream = http2.begin(fields, end_stream=False)
        http2.h2.send_data(stream, b"prompt=x")
        http2.reset(stream)
        assert http2.get("/health").status == 200
        assert served.engine.jobs.empty()
        (record,) = served.app.ledger._records.values()
        assert record.finish_reason == "cancelled"

    def test_end_of_the_connection(self, served: Served, http2: Http2Client) -> None:
        jobs = [begin(served, http2)[1] for _ in range(3)]
        http2.close()
        for job in jobs:
            assert_noticed(job)


class TestGoaway:
    def test_open_streams_end(self, served: Served, http2: Http2Client) -> None:
        stream, job = begin(served, http2)
        http2.send(GoAwayFrame(0))
        http2.h2.ping(b"are you?")
        http2.flush()
        http2.wait(lambda: http2.pings == [b"are you?"])
        job.end("stop", None, " and on")
        assert http2.answer(stream).text == "so far and on"
        http2.wait_closed()
        assert http2.goaways == [(stream, ErrorCodes.NO_ERROR)]

    def test_without_streams(self, http2: Http2Client) -> None:
        http2.send(GoAwayFrame(0))
        http2.wait_closed()


class TestStall:
    def test_blocked_stream_is_cut_alone(self, serve: Serve) -> None:
        served = serve(limits=Limits(write_stall=0.3))
        with Http2Client(served.port, window=0) as client:
            blocked = client.request("/predict?prompt=x")
            blocked_job = served.engine.next_job()
            blocked_job.say("never read")
            client.h2.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = 1000
            open_stream = client.request("/predict?prompt=y")
            client.h2.increment_flow_control_window(1000, open_stream)
            client.flush()
            job = served.engine.next_job()
            job.say("read ")
            client.wait(lambda: client.answers[open_stream].text == "read ")
            answer = client.answer(blocked)
            assert (answer.status, answer.body) == (200, b"")
            assert answer.reset == ErrorCodes.INTERNAL_ERROR
            assert blocked_job.cancelled.wait(SECONDS)
            job.end("stop", None, "on")
            assert client.answer(open_stream).text == "read on"

    @pytest.mark.parametrize("path", ["/nothing", "/predict?prompt=x"])
    def test_end_of_a_reply_that_nobody_takes(self, serve: Serve, path: str) -> None:
        served = serve(limits=Limits(write_stall=0.3))
        with Http2Client(served.port, window=0) as client:
            stream = client.request(path)
            if path != "/nothing":
                served.engine.next_job().end("stop", None, "whole")
            assert client.answer(stream).reset is not None
            client.request("/health")
            client.wait(lambda: client.answers[stream].status is not None)

    def test_window_that_shrinks_after_the_promise(
        self, serve: Serve, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Http2Connection, "reserve", lambda *_: True)
        served = serve(limits=Limits(write_stall=0.3))
        with Http2Client(served.port, window=0) as client:
            stream = client.request("/predict?prompt=x")
            served.engine.next_job().end("stop", None, "never read")
            assert client.answer(stream).reset is not None

    def test_opened_window_lets_it_go_on(self, served: Served) -> None:
        with Http2Client(served.port, window=0) as client:
            stream = client.request("/predict?prompt=x")
            job = served.engine.next_job()
            job.say("x" * 50_000)
            job.end()
            answer = client.answers[stream]
            client.wait(lambda: answer.status == 200)
            client.takes_data = False
            for size in (1, 16_384, 20_000, 100_000):
                client.h2.increment_flow_control_window(size, stream)
                client.flush()
                expected = min(50_000, len(answer.body) + size)
                client.wait(lambda expected=expected: len(answer.body) == expected)
            assert client.answer(stream).is_whole

    def test_settings_open_windows_too(self, served: Served) -> None:
        with Http2Client(served.port, window=0) as client:
            stream = client.request("/predict?prompt=x")
            job = served.engine.next_job()
            job.end("stop", None, "x" * 1000)
            client.wait(lambda: client.answers[stream].status == 200)
            client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2000})
            client.flush()
            assert len(client.answer(stream).body) == 1000

    def test_socket_that_nobody_reads(self, serve: Serve) -> None:
        served = serve(limits=Limits(write_stall=0.3))
        with Http2Client(served.port, window=(1 << 31) - 1) as client:
            client.h2.increment_flow_control_window((1 << 31) - 1 - 65535)
            client.request("/predict?prompt=x")
            job = served.engine.next_job()
            (connection,) = served.server._http._http2
            while connection._unwritten is None:
                job.say("x" * 16_000)
                served.settle()
            served.run(served.wait_for_no_http2)
            assert job.cancelled.is_set()
            assert client.socket.recv(65536), "what the kernel had taken"


def test_frame_that_is_too_long_is_not_waited_for(http2: Http2Client) -> None:
    http2.socket.sendall(b"\x00\x40\x01\x00\x00\x00\x00\x00\x01")
    http2.wait_closed()
    assert http2.goaways == [(0, ErrorCodes.FRAME_SIZE_ERROR)]


def test_idle_connection_is_closed(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    # The client sees the end when it is there, not when the server loses patience.
    monkeypatch.setattr("llm_api.server.http2.connection._GOODBYE_SECONDS", 60)
    served = serve(limits=Limits(idle_timeout=0.2))
    with Http2Client(served.port) as client:
        assert client.get("/health").status == 200
        client.wait_closed()
        assert client.goaways == [(1, ErrorCodes.NO_ERROR)]


def test_running_connection_is_not_idle(serve: Serve) -> None:
    served = serve(limits=Limits(idle_timeout=0.2))
    with Http2Client(served.port) as client:
        stream, job = begin(served, client)
        assert not job.cancelled.wait(0.4)
        job.end("stop", None, "!")
        assert client.answer(stream).text == "so far!"
