"""Replies that break off after their first byte, as their readers see it."""

from __future__ import annotations

import http.client
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from ..support.raw import Raw
from ..support.scripted import SECONDS, Job
from ..support.serving import Served

if TYPE_CHECKING:
    from tornado.httputil import HTTPMessageDelegate

    from llm_api.server.exchange import Exchange


def begin(served: Served, client: Raw, version: str = "HTTP/1.1") -> Job:
    client.request("/predict?prompt=x", version=version)
    job = served.engine.next_job()
    job.say("so far")
    client.read_until(b"so far")
    return job


def test_http_1_1_ends_without_the_last_chunk(served: Served, client: Raw) -> None:
    job = begin(served, client)
    job.say(" so good")
    client.read_until(b"good\r\n")
    job.fail()
    assert client.read_all() == b""


def test_http_1_0_is_reset(served: Served, client: Raw) -> None:
    begin(served, client, "HTTP/1.0").fail()
    with pytest.raises(ConnectionResetError):
        client.read_all()


def test_exception_while_streaming_breaks_the_reply(
    served: Served, client: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm_api.server.reply import Reply

    job = begin(served, client)

    def fail(*_: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(Reply, "write", fail)
    job.say("more")
    assert client.read_all() == b"\r\n", "what is left of the first chunk"
    assert job.cancelled.wait(SECONDS)


def test_exception_at_the_end_breaks_the_reply(
    served: Served, client: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm_api.server.reply import Reply

    job = begin(served, client)

    def fail(*_: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(Reply, "finish", fail)
    job.end()
    assert client.read_all() == b"\r\n"


@pytest.mark.parametrize(("option", "exit_code"), [("--http1.1", 18), ("--http1.0", 56)])
@pytest.mark.parametrize("in_one_batch", [False, True])
def test_exit_codes_of_curl(
    served: Served, option: str, exit_code: int, in_one_batch: bool
) -> None:
    url = f"http://127.0.0.1:{served.port}/predict?prompt=x"
    with subprocess.Popen(
        ["curl", "-s", "-N", option, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as curl:
        assert curl.stdout is not None
        job = served.engine.next_job()
        if in_one_batch:
            job.say("so far")
            job.fail()
        else:
            job.say("so far")
            assert curl.stdout.read(6) == b"so far"
            job.fail()
        curl.communicate(timeout=SECONDS)
    assert curl.returncode == exit_code


@pytest.mark.parametrize("option", ["--http1.1", "--http1.0"])
def test_whole_replies_satisfy_curl(served: Served, option: str) -> None:
    url = f"http://127.0.0.1:{served.port}/predict?prompt=x"
    with subprocess.Popen(
        ["curl", "-s", "-N", option, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as curl:
        job = served.engine.next_job()
        job.say("all ")
        job.end("stop", None, "there")
        assert curl.communicate(timeout=SECONDS)[0] == b"all there"
    assert curl.returncode == 0


def test_http_client_sees_an_incomplete_read(served: Served) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=SECONDS)
    connection.request("GET", "/predict?prompt=x")
    job = served.engine.next_job()
    job.say("so far")
    response = connection.getresponse()
    assert response.read(6) == b"so far"
    job.fail()
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    connection.close()


def test_others_go_on(served: Served) -> None:
    with Raw(served.port) as broken, Raw(served.port) as whole:
        broken_job, whole_job = begin(served, broken), begin(served, whole)
        broken_job.fail()
        assert broken.read_all() == b"\r\n"
        whole_job.end("stop", None, " and further")
        assert whole.read_until(b"0\r\n\r\n").endswith(b" and further\r\n0\r\n\r\n")


class TestLeaving:
    """A client that goes away stops its generation, within 250 ms."""

    @staticmethod
    def assert_noticed(job: Job) -> None:
        start = time.monotonic()
        assert job.cancelled.wait(SECONDS)
        assert time.monotonic() - start < 0.25

    def test_before_the_first_text(self, served: Served, client: Raw) -> None:
        client.request("/predict", {"prompt": "x"})
        job = served.engine.next_job()
        client.close()
        self.assert_noticed(job)

    def test_between_tokens(self, served: Served, client: Raw) -> None:
        job = begin(served, client)
        client.close()
        self.assert_noticed(job)

    @pytest.mark.parametrize("text_first", [False, True])
    def test_with_unread_requests_behind(
        self, served: Served, client: Raw, text_first: bool
    ) -> None:
        request = b"GET /predict?prompt=x HTTP/1.1\r\nHost: x\r\n\r\n"
        client.send(request * 3 + b"GET /pre")
        job = served.engine.next_job()
        if text_first:
            job.say("so far")
            client.read_until(b"so far\r\n")
        client.close()
        self.assert_noticed(job)
        assert served.engine.jobs.empty(), "nobody is there for the next request"

    def test_by_reset(self, served: Served, client: Raw) -> None:
        import socket
        import struct

        job = begin(served, client)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        self.assert_noticed(job)

    @pytest.mark.parametrize("is_read", [False, True])
    def test_no_timer_holds_who_left(
        self, served: Served, monkeypatch: pytest.MonkeyPatch, is_read: bool
    ) -> None:
        from llm_api.server.http1 import Http1Reader

        readers: list[Http1Reader] = []
        begin_next = Http1Reader.begin

        def begin_noted(self: Http1Reader, exchange: Exchange) -> HTTPMessageDelegate:
            readers.append(self)
            return begin_next(self, exchange)

        monkeypatch.setattr(Http1Reader, "begin", begin_noted)
        with Raw(served.port) as client:
            client.request("/predict", {"prompt": "x"})
            job = served.engine.next_job()
            if is_read:
                job.end("stop", None, "y")
                assert client.response().text == "y"
        if not is_read:
            assert job.cancelled.wait(SECONDS)
        served.run(served.wait_for_no_http1)
        assert readers
        assert all(reader._timer is None for reader in readers)

    def test_watch_ends_with_the_reply(self, served: Served, client: Raw) -> None:
        for _ in range(3):
            client.request("/predict", {"prompt": "x"})
            served.engine.next_job().end("stop", None, "y")
            assert client.response().text == "y"
        client.request("/predict", {"prompt": "x"})
        job = served.engine.next_job()
        client.close()
        self.assert_noticed(job)
