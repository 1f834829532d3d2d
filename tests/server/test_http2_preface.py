"""HTTP/1 and HTTP/2 told apart by their first bytes, however those arrive."""

from __future__ import annotations

import asyncio

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection

from llm_api.limits import Limits
from llm_api.server.http2.preface import PREFACE

from ..support.raw import Raw
from ..support.serving import Served
from .conftest import Serve


def test_preface_byte_by_byte(served: Served, client: Raw) -> None:
    client.socket.setsockopt(6, 1, 1)  # TCP_NODELAY
    h2 = H2Connection(H2Configuration())
    h2.initiate_connection()
    for byte in h2.data_to_send():
        client.send(bytes([byte]))
        served.settle()
    assert h2.receive_data(client.read())


def test_preface_and_request_in_one_piece(served: Served, client: Raw) -> None:
    h2 = H2Connection(H2Configuration())
    h2.initiate_connection()
    fields = {":method": "GET", ":scheme": "http", ":authority": "test", ":path": "/health"}
    h2.send_headers(1, list(fields.items()), end_stream=True)
    client.send(h2.data_to_send())
    data = b""
    while b'{"status": "ok"}' not in data:
        data += client.read()


@pytest.mark.parametrize("cut", [1, 2, 3, 10, 20, 30, 200])
def test_methods_that_begin_alike(served: Served, client: Raw, cut: int) -> None:
    body = b"prompt=" + b"x" * 200
    request = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    client.send(request[:cut])
    served.settle()
    client.send(request[cut:])
    served.engine.next_job().end("stop", None, "y")
    assert client.response().text == "y"


def test_pipelined_requests_stay_in_order(served: Served, client: Raw) -> None:
    for path in ("/health", "/nothing", "/health"):
        client.request(path)
    assert [client.response().status for _ in range(3)] == [200, 404, 200]


@pytest.mark.parametrize("length", range(len(PREFACE)))
def test_almost_a_preface_is_http1(served: Served, client: Raw, length: int) -> None:
    client.send(PREFACE[:length] + b"!\r\n\r\n")
    assert client.read_until(b"\r\n") == b"HTTP/1.1 400 Bad Request\r\n"


def test_part_of_a_preface_is_waited_for(serve: Serve) -> None:
    served = serve(limits=Limits(header_timeout=0.2))
    with Raw(served.port) as client:
        client.send(PREFACE[:10])
        assert client.read_all() == b""


def test_client_that_leaves_within_the_preface(served: Served) -> None:
    with Raw(served.port) as client:
        client.send(PREFACE[:10])
    with Raw(served.port) as client:
        client.request("/health")
        assert client.response().status == 200


def test_connections_of_all_kinds_are_counted(serve: Serve) -> None:
    served = serve(limits=Limits(connections=3))
    with Raw(served.port) as new, Raw(served.port) as http1, Raw(served.port) as http2:
        new.send(PREFACE[:5])
        http1.request("/health")
        assert http1.response().status == 200
        http2.send(PREFACE)
        assert http2.read()
        with Raw(served.port) as fourth:
            assert fourth.response().status == 503
        http2.close()
        served.run(served.wait_for_no_http2)
        assert served.server._http._open == 2
        with Raw(served.port) as fourth:
            fourth.request("/health")
            assert fourth.response().status == 200
            new.close()

            async def wait_for_close() -> None:
                while served.server._http._new:
                    await asyncio.sleep(0.01)

            served.run(wait_for_close)
            assert served.server._http._open == 2
