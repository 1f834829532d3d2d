"""Requests that do not come to their end: late ones, and malformed ones."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator

import pytest
from h2.errors import ErrorCodes
from hpack import Encoder
from hyperframe.frame import ContinuationFrame, DataFrame, HeadersFrame

from llm_api.limits import Limits

from ..support.http2 import Answer, Http2Client
from ..support.raw import Raw, Response
from ..support.scripted import ScriptedEngine, echo
from ..support.serving import Served
from .conftest import Serve
from .test_refusals import FORM, assert_refused

HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


def assert_last(client: Raw, status: int, *mentioned: str) -> Response:
    """There is an answer, which says that it is the last one, and is."""
    reply = client.response()
    assert_refused(reply, status, *mentioned)
    assert reply.headers["connection"] == "close"
    assert client.read_all() == b""
    return reply


class TestHeaders:
    FAST = Limits(header_timeout=0.2, idle_timeout=60)

    @pytest.mark.parametrize("sent", [b"GET /health HT", b"POST / HTTP/1.1\r\nHost: x\r\n"])
    def test_late(self, serve: Serve, sent: bytes) -> None:
        with Raw(serve(limits=self.FAST).port) as client:
            client.send(sent)
            assert_last(client, 408, "headers", "0.2 s")

    def test_late_for_the_next_request(self, serve: Serve) -> None:
        with Raw(serve(limits=self.FAST).port) as client:
            client.send(HEALTH)
            assert client.response().status == 200
            client.send(HEALTH[:-2])
            assert_last(client, 408, "headers")

    def test_late_for_a_request_sent_ahead(self, serve: Serve) -> None:
        with Raw(serve(limits=self.FAST).port) as client:
            client.send(HEALTH + HEALTH[:-2])
            assert client.response().status == 200
            assert_last(client, 408, "headers")

    def test_drop_by_drop(self, serve: Serve) -> None:
        """It is the time of all of them that counts."""
        with Raw(serve(limits=self.FAST).port) as client:
            client.send(HEALTH[:-2])
            with pytest.raises(ConnectionError):
                client.send_slowly(b"X: y\r\n", 0.02)

    def test_no_end_in_sight(self, serve: Serve) -> None:
        with Raw(serve(limits=Limits(headers=1000)).port) as client:
            client.send(HEALTH[:-2] + b"X: " + b"y" * 8000)
            assert_last(client, 431, "at most 1000 bytes")

    def test_nothing_at_all(self, serve: Serve) -> None:
        with Raw(serve(limits=self.FAST).port) as client:
            assert client.read_all() == b""

    def test_it_is_logged(self, serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        served = serve(limits=self.FAST)
        with Raw(served.port) as client:
            client.send(b"GET / HT")
            reply = client.response()
        assert f"{reply.headers['x-request-id']} - 408 total=" in caplog.text


class TestHttp2Headers:
    FAST = Limits(header_timeout=0.2, idle_timeout=60)

    @pytest.fixture
    def client(self, serve: Serve) -> Iterator[Http2Client]:
        """A client that has nothing more to say by itself, which would end a header block."""
        with Http2Client(serve(ScriptedEngine(echo), limits=self.FAST).port) as client:
            assert client.get("/health").status == 200
            yield client

    @staticmethod
    def frames(client: Http2Client, stream: int) -> list[bytes]:
        """A request in three frames, all but the last without END_HEADERS."""
        block = Encoder().encode(client.fields("/health"))
        frames = [
            HeadersFrame(stream, block[:5], flags=["END_STREAM"]),
            ContinuationFrame(stream, block[5:9]),
            ContinuationFrame(stream, block[9:], flags=["END_HEADERS"]),
        ]
        return [frame.serialize() for frame in frames]

    @staticmethod
    def assert_late(client: Http2Client) -> None:
        client.wait_closed()
        assert client.goaways == [(1, ErrorCodes.ENHANCE_YOUR_CALM)]

    @pytest.mark.parametrize("frames", [1, 2])
    @pytest.mark.parametrize("more", [0, 4, 10])
    def test_late(self, client: Http2Client, frames: int, more: int) -> None:
        """Whole frames of a block, and some bytes of the next one."""
        sent = self.frames(client, 3)
        client.socket.sendall(b"".join(sent[:frames]) + sent[frames][:more])
        self.assert_late(client)

    def test_late_with_the_first_frame(self, client: Http2Client) -> None:
        client.socket.sendall(self.frames(client, 3)[0][:-1])
        self.assert_late(client)

    def test_drop_by_drop(self, client: Http2Client) -> None:
        """It is the time of all of them that counts."""
        threading.Thread(target=self.send_drops, args=(client,), daemon=True).start()
        self.assert_late(client)

    @staticmethod
    def send_drops(client: Http2Client) -> None:
        with contextlib.suppress(OSError):
            for byte in HeadersFrame(3, b"\0" * 1000).serialize():
                client.socket.sendall(bytes([byte]))
                time.sleep(0.05)

    def test_it_is_logged(self, client: Http2Client, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        client.socket.sendall(self.frames(client, 3)[0])
        self.assert_late(client)
        assert "closed the connection of 127.0.0.1: a header block that did not" in caplog.text

    def test_one_after_the_other(self, serve: Serve) -> None:
        """Each has its own time, though there is always one that has begun."""
        with Http2Client(serve(limits=Limits(header_timeout=1.0)).port) as client:
            assert client.get("/health").status == 200
            client.socket.sendall(self.frames(client, 3)[0])
            for stream in range(3, 17, 2):
                time.sleep(0.2)
                client.h2.send_headers(stream, client.fields("/health"), end_stream=True)
                client.h2.clear_outbound_data_buffer()  # it comes in other frames
                client.answers[stream] = Answer()
                rest = self.frames(client, stream)[1:]
                client.socket.sendall(b"".join([*rest, self.frames(client, stream + 2)[0]]))
                assert client.answer(stream).status == 200

    def test_a_body_has_more_time(self, client: Http2Client) -> None:
        fields = client.fields("/predict", "POST", content_type=FORM["Content-Type"])
        stream = client.begin(fields, end_stream=False)
        data = DataFrame(stream, b"prompt=x", flags=["END_STREAM"]).serialize()
        client.socket.sendall(data[:10])
        time.sleep(0.4)
        client.socket.sendall(data[10:])
        assert client.answer(stream).text == "x"


class TestIdle:
    FAST = Limits(header_timeout=60, idle_timeout=0.2)

    def test_closed_without_a_word(self, serve: Serve) -> None:
        with Raw(serve(limits=self.FAST).port) as client:
            client.send(HEALTH)
            assert client.response().status == 200
            assert client.read_all() == b""

    def test_a_reply_is_not_idle(self, serve: Serve) -> None:
        served = serve(limits=self.FAST)
        with Raw(served.port) as client:
            client.request("/predict", {"prompt": "x"})
            job = served.engine.next_job()
            assert not job.cancelled.wait(0.4)
            job.end("stop", None, "y")
            assert client.response().text == "y"


class TestBody:
    FAST = Limits(body_timeout=0.2)

    @pytest.mark.parametrize(
        "headers", [{"Content-Length": "10"}, {"Transfer-Encoding": "chunked"}]
    )
    @pytest.mark.parametrize("sent", [b"", b"7\r\nprom"])
    def test_late(self, serve: Serve, headers: dict[str, str], sent: bytes) -> None:
        served = serve(limits=self.FAST)
        with Raw(served.port) as client:
            client.request("/predict", method="POST", headers=FORM | headers)
            client.send(sent)
            reply = assert_last(client, 408, "body", "0.2 s")
        assert served.engine.jobs.empty()
        served.settle()
        record = served.app.ledger.get(reply.headers["x-request-id"])
        assert record
        assert (record.status, record.finish_reason) == (408, "error")

    def test_late_for_its_refusal(self, serve: Serve) -> None:
        """What is refused is not waited for either; it has its answer."""
        with Raw(serve(limits=self.FAST).port) as client:
            client.request("/predict", method="POST", headers={"Content-Length": "10"})
            assert_refused(client.response(), 415)
            assert client.read_all() == b""

    def test_http2(self, serve: Serve) -> None:
        """The other streams of the connection go on."""
        with Http2Client(serve(ScriptedEngine(echo), limits=self.FAST).port) as client:
            fields = client.fields("/predict", "POST", content_type=FORM["Content-Type"])
            stream = client.begin(fields, end_stream=False)
            answer = client.answer(stream)
            assert answer.status == 408
            assert answer.text == "the body did not come in time: send it within 0.2 s\n"
            assert "connection" not in answer.headers
            assert client.get("/predict", {"prompt": "x"}).text == "x"

    def test_in_time(self, serve: Serve) -> None:
        """The time ends with the body, not with the reply."""
        served = serve(limits=self.FAST)
        with Raw(served.port) as client:
            client.request("/predict", {"prompt": "x"})
            job = served.engine.next_job()
            assert not job.cancelled.wait(0.4)
            job.end("stop", None, "y")
            assert client.response().text == "y"


def test_bodies_of_one_http2_connection(serve: Serve) -> None:
    """What is unfinished is bounded; what comes to its end makes room."""
    served = serve(ScriptedEngine(echo), limits=Limits(body=100_000, bodies=200_000))
    with Http2Client(served.port) as client:
        fields = client.fields("/predict", "POST", content_type=FORM["Content-Type"])
        text = "x" * (60_000 - len("prompt="))

        def begin() -> int:
            stream = client.begin(fields, end_stream=False)
            for piece in range(0, 60_000, 15_000):
                client.wait(lambda: client.h2.local_flow_control_window(stream) >= 15_000)
                client.h2.send_data(stream, f"prompt={text}".encode()[piece : piece + 15_000])
                client.flush()
            return stream

        streams = [begin() for _ in range(3)]
        refused = client.answer(begin())
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert "unfinished" in refused.text
        for stream in streams:
            client.h2.end_stream(stream)
        client.flush()
        assert all(client.answer(stream).text == text for stream in streams)
        streams = [begin() for _ in range(3)]
        client.reset(streams.pop())
        streams.append(begin())
        for stream in streams:
            client.h2.end_stream(stream)
        client.flush()
        assert all(client.answer(stream).text == text for stream in streams)


CHUNKED = FORM | {"Transfer-Encoding": "chunked"}
BAD_CHUNKS = [b"zz\r\n", b"-1\r\n", b"3\r\nabcd\r\n", b"0\r\nxx", b"1" * 100, b"1;" + b"x" * 100]


class TestChunks:
    @pytest.mark.parametrize("sent", BAD_CHUNKS)
    @pytest.mark.parametrize("good", [b"", b"7\r\nprompt=\r\n"])
    def test_malformed(
        self, served: Served, sent: bytes, good: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        """It was the client's mistake, and the log does not say that it left."""
        caplog.set_level(logging.INFO)
        with Raw(served.port) as client:
            client.request("/predict", method="POST", headers=CHUNKED)
            client.send(good + sent)
            reply = assert_last(client, 400, "not a valid HTTP request", "chunks")
        served.settle()
        lines = [line.getMessage() for line in caplog.records if line.name == "llm_api.requests"]
        assert len(lines) == 1
        assert lines[0].startswith(f"{reply.headers['x-request-id']} /predict 400 error ")

    def test_malformed_after_a_refusal(self, served: Served) -> None:
        """There is one answer to one request."""
        with Raw(served.port) as client:
            client.request("/predict", method="POST", headers={"Transfer-Encoding": "chunked"})
            assert_refused(client.response(), 415)
            client.send(b"zz\r\n")
            assert client.read_all() == b""
