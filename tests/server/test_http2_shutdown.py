"""The end of a server that has HTTP/2 clients."""

from __future__ import annotations

import signal
import threading

import pytest
from h2.errors import ErrorCodes

from ..support.http2 import Http2Client
from ..support.serving import Served
from .test_lifecycle import process

_ANY = (1 << 31) - 1


def begin(client: Http2Client) -> int:
    stream = client.request("/predict?prompt=x")
    client.wait(lambda: client.answers[stream].text == "begun ")
    return stream


def test_two_stages() -> None:
    with process() as server, Http2Client(server.port) as client:
        stream = begin(client)
        server.signal(signal.SIGTERM)
        client.wait(lambda: len(client.goaways) == 2)
        assert client.goaways == [(_ANY, ErrorCodes.NO_ERROR), (stream, ErrorCodes.NO_ERROR)]
        late = client.request("/health")
        assert client.answer(late).reset == ErrorCodes.REFUSED_STREAM
        server.tell("and ended")
        assert client.answer(stream).text == "begun and ended"
        client.wait_closed()
        assert len(client.goaways) == 2
        assert server.exit_status() == 0


def test_last_stream_never_rises() -> None:
    with process() as server, Http2Client(server.port) as client:
        stream = begin(client)
        server.signal(signal.SIGTERM)
        client.wait(lambda: len(client.goaways) == 2)
        client.request("/health")
        client.socket.sendall(b"\x00\x00\x08\x06\x00\x00\x00\x00\x0112345678")  # PING on a stream
        client.wait_closed()
        assert client.goaways[-1] == (stream, ErrorCodes.PROTOCOL_ERROR)


def test_connections_are_closed_with_the_server(served: Served) -> None:
    with Http2Client(served.port) as client:
        assert client.get("/health").status == 200
        closed = threading.Thread(target=served.run, args=(served.server.close,))
        closed.start()
        client.wait_closed()
        client.close()
        closed.join()
        assert client.goaways == [(1, ErrorCodes.NO_ERROR)]
        assert not served.server._http._http2


def test_client_that_does_not_answer_pings_gets_both() -> None:
    with process() as server, Http2Client(server.port) as client:
        stream = begin(client)
        server.signal(signal.SIGTERM)
        client.answers_pings = False
        client.wait(lambda: len(client.goaways) == 2)
        server.tell("and ended")
        assert client.answer(stream).text == "begun and ended"
        assert server.exit_status() == 0


def test_request_between_the_stages_has_an_answer() -> None:
    with process() as server, Http2Client(server.port) as client:
        stream = begin(client)
        client.answers_pings = False
        server.signal(signal.SIGTERM)
        client.wait(lambda: len(client.goaways) == 1)
        assert client.get("/health").status == 503
        server.tell("and ended")
        assert client.answer(stream).text == "begun and ended"
        assert server.exit_status() == 0


def test_idle_connections_end() -> None:
    with process() as server, Http2Client(server.port) as client:
        assert client.get("/health").status == 200
        server.signal(signal.SIGTERM)
        client.wait_closed()
        assert server.exit_status() == 0


@pytest.mark.parametrize("second", [None, signal.SIGINT])
def test_what_still_runs_is_reset(second: int | None) -> None:
    with process(shutdown_timeout=0.3 if second is None else 30) as server:
        with Http2Client(server.port) as client:
            stream = begin(client)
            server.signal(signal.SIGTERM)
            server.read_log("shutting down")
            if second is not None:
                server.signal(second)
            assert client.answer(stream).reset == ErrorCodes.INTERNAL_ERROR
            client.wait_closed()
        assert server.exit_status() == (0 if second is None else 1)
