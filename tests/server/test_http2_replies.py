"""Requests and replies over HTTP/2: the same as over HTTP/1, many on one connection."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from h2.errors import ErrorCodes
from tornado.httputil import HTTPHeaders, ResponseStartLine
from tornado.iostream import IOStream

from llm_api.limits import Limits

from ..support.http2 import Http2Client
from ..support.raw import Raw
from ..support.scripted import Job, ScriptedEngine, echo
from ..support.serving import Served
from .conftest import Serve

FORM = {"content_type": "application/x-www-form-urlencoded"}


@pytest.fixture
def http2(served: Served) -> Iterator[Http2Client]:
    with Http2Client(served.port) as client:
        yield client


def by_text(served: Served, count: int) -> dict[str, Job]:
    jobs = [served.engine.next_job() for _ in range(count)]
    return {job.text: job for job in jobs}


def test_a_reply_is_streamed(served: Served, http2: Http2Client) -> None:
    stream = http2.request("/predict", {"prompt": "x"})
    job = served.engine.next_job()
    answer = http2.answers[stream]
    job.say("one ")
    http2.wait(lambda: answer.text == "one ")
    assert (answer.status, answer.is_whole) == (200, False)
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "transfer-encoding" not in answer.headers
    job.say("two ")
    http2.wait(lambda: answer.text == "one two ")
    job.end("stop", None, "three")
    assert http2.answer(stream).text == "one two three"
    assert answer.is_whole


def test_the_post_mortem_is_there(served: Served, http2: Http2Client) -> None:
    stream = http2.request("/predict?prompt=x")
    served.engine.next_job().end("stop", None, "y")
    request_id = http2.answer(stream).headers["x-request-id"]
    assert '"finishReason": "stop"' in http2.get(f"/requests/{request_id}").text


def test_streams_are_not_mixed_up(serve: Serve) -> None:
    served = serve(ScriptedEngine(echo))
    with Http2Client(served.port) as client:
        texts = {client.request("/predict", {"prompt": f"{n} " * 300}): n for n in range(50)}
        for stream, n in texts.items():
            assert client.answer(stream).text == f"{n} " * 300


def test_both_protocols_share_the_port(served: Served, http2: Http2Client) -> None:
    with Raw(served.port) as http1:
        http1.request("/health")
        assert http1.response().text == http2.get("/health").text == '{"status": "ok"}'


class TestRefusals:
    """Each leaves its connection as good as before."""

    @pytest.fixture(autouse=True)
    def check_connection(self, http2: Http2Client) -> Iterator[None]:
        yield
        assert http2.get("/health").status == 200
        assert not http2.goaways

    def refuse(self, http2: Http2Client, status: int, text: str, stream: int) -> None:
        answer = http2.answer(stream)
        assert (answer.status, answer.is_whole) == (status, True)
        assert text in answer.text

    def test_not_found(self, http2: Http2Client) -> None:
        self.refuse(http2, 404, "no such endpoint", http2.request("/nothing"))

    def test_bad_field(self, http2: Http2Client) -> None:
        self.refuse(http2, 400, "prompt", http2.request("/predict", {"promt": "x"}))

    def test_method(self, http2: Http2Client) -> None:
        stream = http2.begin(http2.fields("/predict", "PUT"), end_stream=True)
        self.refuse(http2, 405, "only GET and POST methods supported", stream)
        assert http2.answers[stream].headers["allow"] == "GET, POST"

    def test_head_has_no_body(self, http2: Http2Client) -> None:
        stream = http2.begin(http2.fields("/predict", "HEAD"), end_stream=True)
        self.refuse(http2, 405, "", stream)
        assert http2.answers[stream].body == b""
        assert int(http2.answers[stream].headers["content-length"]) > 0

    def test_content_type(self, http2: Http2Client) -> None:
        fields = http2.fields("/predict", "POST", content_type="application/json")
        stream = http2.begin(fields, end_stream=False)
        http2.h2.send_data(stream, b"{}", end_stream=True)
        http2.flush()
        self.refuse(http2, 415, "send the form as", stream)

    def test_announced_length(self, http2: Http2Client) -> None:
        fields = http2.fields("/predict", "POST", content_length=str(2 << 20), **FORM)
        stream = http2.begin(fields, end_stream=False)
        http2.wait(lambda: http2.answers[stream].status == 413)
        http2.reset(stream)

    def test_length_that_shows_itself(self, http2: Http2Client) -> None:
        stream = http2.begin(http2.fields("/predict", "POST", **FORM), end_stream=False)
        send_body(http2, stream, (1 << 20) + 1)
        self.refuse(http2, 413, "too large", stream)

    def test_header_block(self, http2: Http2Client) -> None:
        stream = http2.request("/health", x_long="x" * (33 << 10))
        self.refuse(http2, 431, "headers are too large", stream)


def send_body(http2: Http2Client, stream: int, size: int) -> None:
    http2.h2.send_data(stream, b"prompt=", end_stream=False)
    size -= len("prompt=")
    answer = http2.answers[stream]
    while size:
        http2.wait(lambda: answer.is_over or http2.h2.local_flow_control_window(stream) > 0)
        if answer.is_over:
            return
        piece = min(size, http2.h2.local_flow_control_window(stream), 16384)
        size -= piece
        http2.h2.send_data(stream, b"x" * piece, end_stream=not size)
        http2.flush()


def test_body_over_many_windows(served: Served, http2: Http2Client) -> None:
    stream = http2.begin(http2.fields("/predict", "POST", **FORM), end_stream=False)
    send_body(http2, stream, 500_000)
    job = served.engine.next_job()
    assert len(job.text) == 500_000 - len("prompt=")
    job.end("stop", None, "read")
    assert http2.answer(stream).text == "read"


def test_body_that_never_ends_is_cut_off(serve: Serve) -> None:
    served = serve(limits=Limits(discarded_body=100_000))
    with Http2Client(served.port) as client:
        fields = client.fields("/nothing", "POST", **FORM)
        stream = client.begin(fields, end_stream=False)
        send_body(client, stream, 500_000)
        answer = client.answer(stream)
        client.wait(lambda: answer.reset is not None)
        assert (answer.status, answer.is_whole, answer.reset) == (404, True, ErrorCodes.NO_ERROR)
        assert client.get("/health").status == 200


def test_expectation(served: Served, http2: Http2Client) -> None:
    fields = http2.fields("/predict", "POST", expect="100-continue", **FORM)
    stream = http2.begin(fields, end_stream=False)
    http2.wait(lambda: http2.answers[stream].informational == [100])
    http2.h2.send_data(stream, b"prompt=x", end_stream=True)
    http2.flush()
    served.engine.next_job().end("stop", None, "y")
    assert http2.answer(stream).text == "y"


def test_trailers_change_nothing(served: Served, http2: Http2Client) -> None:
    stream = http2.begin(http2.fields("/predict", "POST", **FORM), end_stream=False)
    http2.h2.send_data(stream, b"prompt=x")
    http2.h2.send_headers(stream, [("x-checksum", "1")], end_stream=True)
    http2.flush()
    job = served.engine.next_job()
    assert job.text == "x"
    job.end("stop", None, "y")
    assert http2.answer(stream).text == "y"


def test_length_without_body(http2: Http2Client) -> None:
    fields = http2.fields("/predict", "POST", content_length="5", **FORM)
    stream = http2.begin(fields, end_stream=True)
    assert http2.answer(stream).reset == ErrorCodes.PROTOCOL_ERROR
    assert http2.get("/health").status == 200


def test_one_stream_too_many_is_refused(serve: Serve) -> None:
    served = serve(limits=Limits(streams=2))
    with Http2Client(served.port) as client:
        first, second = (client.request(f"/predict?prompt={n}") for n in range(2))
        jobs = by_text(served, 2)
        client.h2.remote_settings.max_concurrent_streams = 10  # a client that does not look
        refused = client.request("/predict?prompt=2")
        assert client.answer(refused).reset == ErrorCodes.REFUSED_STREAM
        for n, stream in enumerate((first, second)):
            jobs[str(n)].end("stop", None, f"done {n}")
            assert client.answer(stream).text == f"done {n}"
        again = client.request("/predict?prompt=2")
        served.engine.next_job().end("stop", None, "done 2")
        assert client.answer(again).text == "done 2"
        assert not client.goaways


def test_streams_of_one_turn_share_one_write(
    served: Served, http2: Http2Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams = [http2.request(f"/predict?prompt={n}") for n in range(20)]
    jobs = by_text(served, 20)
    for job in jobs.values():
        job.say("begun ")
    http2.wait(lambda: all(http2.answers[stream].text for stream in streams))
    writes = []
    write = IOStream.write
    monkeypatch.setattr(
        IOStream, "write", lambda self, data: (writes.append(len(data)), write(self, data))[1]
    )

    async def say_all() -> None:
        for job in jobs.values():
            for text in ("more ", "and ", "more "):
                job._listener.on_text(text)

    served.run(say_all)
    http2.wait(lambda: all(http2.answers[s].text.endswith("more and more ") for s in streams))
    assert len(writes) == 1


def test_streams_share_a_narrow_connection(served: Served, http2: Http2Client) -> None:
    http2.takes_data = False
    streams = [http2.request(f"/predict?prompt={n}") for n in range(3)]
    by_text(served, 3)

    async def write_all() -> None:
        (connection,) = served.server._http._http2
        for stream in connection._streams.values():
            stream.write_headers(ResponseStartLine("", 200, ""), HTTPHeaders(), b"x" * 60_000)

    served.run(write_all)
    answers = [http2.answers[stream] for stream in streams]
    http2.wait(lambda: sum(len(answer.body) for answer in answers) == 65_535)
    assert [len(answer.body) for answer in answers] == [32_767, 16_384, 16_384], "in turn"
    http2.h2.increment_flow_control_window(40_000)
    http2.flush()
    http2.wait(lambda: sum(len(answer.body) for answer in answers) == 105_535)
    # The first is the last to have been served, so that now it waits for the others.
    assert [len(answer.body) for answer in answers] == [39_999, 32_768, 32_768]
