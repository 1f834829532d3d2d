"""Replies to clients that are still sending: no reset takes them away."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_api.limits import Limits
from llm_api.server import goodbye
from llm_api.tls import Certificate

from ..support.http2 import client_context, make_certificate
from ..support.raw import Raw
from ..support.scripted import SECONDS
from ..support.serving import Served, make_settings
from .conftest import Serve
from .test_refusals import FORM, assert_refused

MORE = b"x" * (200 << 10)
"""More than the server has read when it refuses."""
ENDLESS = {"Content-Length": str(1 << 40)}
FEW_BYTES = 32 << 20
"""What fits into the buffers of both sides, and what the server drops."""


def assert_peaceful(client: Raw, status: int, *mentioned: str) -> None:
    """There is an answer, the end of the connection, and no reset, though more is sent."""
    reply = client.response()
    assert_refused(reply, status, *mentioned)
    assert reply.headers["connection"] == "close"
    assert client.read_all() == b""
    client.send(MORE)
    assert client.read_all() == b""


class TestNoReset:
    @pytest.fixture(autouse=True)
    def long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(goodbye, "_SECONDS", SECONDS)

    def test_of_a_body_that_was_not_waited_for(self, client: Raw) -> None:
        """Who expects "100 Continue" is not to send, but may have done so already."""
        client.request("/nowhere", method="POST", headers=ENDLESS | {"Expect": "100-continue"})
        client.send(MORE)
        assert_peaceful(client, 404)

    def test_of_a_body_without_a_length(self, client: Raw) -> None:
        client.request("/predict", method="POST", headers=FORM | {"Content-Length": "-1"})
        client.send(MORE)
        assert_peaceful(client, 400, "Content-Length")

    def test_of_a_malformed_body(self, client: Raw) -> None:
        client.request("/predict", method="POST", headers=FORM | {"Transfer-Encoding": "chunked"})
        client.send(b"zz\r\n" + MORE)
        assert_peaceful(client, 400, "chunks")

    def test_of_a_late_body(self, serve: Serve) -> None:
        with Raw(serve(limits=Limits(body_timeout=0.2)).port) as client:
            client.request("/predict", method="POST", headers=FORM | {"Content-Length": "999999"})
            assert_peaceful(client, 408, "body")

    def test_of_more_than_is_dropped(self, serve: Serve) -> None:
        limits = Limits(body=1000, discarded_body=100_000)
        with Raw(serve(limits=limits).port) as client:
            client.request("/predict", method="POST", headers=FORM | ENDLESS)
            client.send(MORE)
            reply = client.response()
            assert_refused(reply, 413, "1000 bytes")
            assert client.read_all() == b""
            client.send(MORE)
            assert client.read_all() == b""

    def test_of_what_is_not_http(self, client: Raw) -> None:
        client.send(b"what?\r\n\r\n" + MORE)
        assert_peaceful(client, 400)

    def test_of_headers_without_an_end(self, serve: Serve) -> None:
        with Raw(serve(limits=Limits(headers=1000)).port) as client:
            client.send(b"GET /health HTTP/1.1\r\nX: " + MORE)
            assert_peaceful(client, 431)

    def test_of_late_headers(self, serve: Serve) -> None:
        with Raw(serve(limits=Limits(header_timeout=0.2)).port) as client:
            client.send(b"GET /health HTTP/1.1\r\nX: ")
            assert_peaceful(client, 408, "headers")

    def test_of_one_connection_too_many(self, serve: Serve) -> None:
        served = serve(limits=Limits(connections=1))
        with Raw(served.port) as first, Raw(served.port) as second:
            first.request("/health")
            assert first.response().status == 200
            second.send(MORE)
            assert_peaceful(second, 503, "too many connections")

    def test_of_a_malformed_body_over_tls(self, serve: Serve, tmp_path: Path) -> None:
        files = make_certificate(tmp_path)
        settings = make_settings(certificate=Certificate(*map(str, files)))
        with Raw(serve(settings=settings).port) as client:
            context = client_context(files[0], "http/1.1")
            client.socket = context.wrap_socket(client.socket, server_hostname="localhost")
            headers = FORM | {"Transfer-Encoding": "chunked", "Host": "localhost"}
            client.request("/predict", method="POST", headers=headers)
            client.send(b"zz\r\n" + MORE)
            assert_refused(client.response(), 400, "chunks")
            assert client.read_all() == b""


def send_until_reset(client: Raw) -> int:
    """Return how many bytes went out before the server had enough."""
    sent = 0
    client.socket.settimeout(SECONDS)
    try:
        while True:
            sent += client.socket.send(MORE)
    except ConnectionError:
        return sent


class TestBounds:
    @pytest.fixture(autouse=True)
    def short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(goodbye, "_SECONDS", 0.3)

    def test_of_a_refused_body(self, client: Raw) -> None:
        client.request("/nowhere", method="POST", headers=ENDLESS | {"Expect": "100-continue"})
        assert send_until_reset(client) < FEW_BYTES

    def test_of_one_connection_too_many(self, serve: Serve) -> None:
        served = serve(limits=Limits(connections=1))
        with Raw(served.port) as first, Raw(served.port) as second:
            first.request("/health")
            assert first.response().status == 200
            assert send_until_reset(second) < FEW_BYTES

    def test_of_a_client_that_only_waits(self, client: Raw) -> None:
        client.send(b"what?\r\n\r\n")
        assert_refused(client.response(), 400)
        assert client.read_all() == b""
        with pytest.raises(ConnectionError):
            client.send_slowly(b"x", 0.02)

    def test_they_count_as_connections(self, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(goodbye, "_SECONDS", SECONDS)
        served = serve(limits=Limits(connections=1))
        with Raw(served.port) as ending:
            ending.send(b"what?\r\n\r\n")
            assert_refused(ending.response(), 400)
            with Raw(served.port) as other:
                assert_refused(other.response(), 503)
        while served.server._http._open:
            served.settle()

    def test_a_shutdown_does_not_wait(
        self, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(goodbye, "_SECONDS", 1000.0)
        with Raw(served.port) as client:
            client.send(b"what?\r\n\r\n")
            assert_refused(client.response(), 400)
            served.run(served.close_connections)
            served.settle()
            with pytest.raises(ConnectionError):
                client.send_slowly(b"x", 0.02)
