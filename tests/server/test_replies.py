"""Whole replies: what comes back, in which protocol, with which headers."""

from __future__ import annotations

import re

import pytest

from llm_api.limits import Limits

from ..support.raw import Raw
from ..support.scripted import ScriptedEngine, echo
from ..support.serving import PlainTemplate, Served, make_settings
from .conftest import Serve


def test_text_is_streamed_as_it_is_made(served: Served, client: Raw) -> None:
    client.request("/predict", {"prompt": "once"})
    job = served.engine.next_job()
    assert job.text == "once"
    job.say("upon ")
    head = client.read_until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert client.read_until(b"upon \r\n") == b"5\r\nupon \r\n"
    job.say("a ", "time")
    assert client.read_until(b"time\r\n") == b"6\r\na time\r\n", "one batch is one chunk"
    job.end()
    assert client.read_until(b"0\r\n\r\n") == b"0\r\n\r\n"


def test_headers(served: Served, client: Raw) -> None:
    client.request("/predict", {"prompt": "x"})
    served.engine.next_job().end("stop", None, "y")
    reply = client.response()
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-accel-buffering"] == "no"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert re.fullmatch("[0-9a-f]{16}", reply.headers["x-request-id"])
    assert reply.is_whole


@pytest.mark.parametrize("reason", ["stop", "length", "stopRegex"])
def test_reply_without_text_is_an_empty_success(served: Served, client: Raw, reason: str) -> None:
    client.request("/predict", {"prompt": "x"})
    job = served.engine.next_job()
    job.say("")
    job.end(reason)
    reply = client.response()
    assert (reply.status, reply.body, reply.is_whole) == (200, b"", True)


def test_fields_in_query_or_body_by_either_method(serve: Serve) -> None:
    served = serve(ScriptedEngine(echo))
    with Raw(served.port) as client:
        client.request("/predict?prompt=in%20query")
        assert client.response().text == "in query"
        client.request("/predict", {"prompt": "in body"})
        assert client.response().text == "in body"
        client.request("/predict", {"prompt": "GET with body"}, method="GET")
        assert client.response().text == "GET with body"
        client.request("/predict?prompt=query", {"prompt": "body"})
        assert client.response().text == "body", "the body comes first"
        client.request("/predict?prompt=empty", method="POST")
        assert client.response().text == "empty"


def test_body_in_chunks(serve: Serve) -> None:
    served = serve(ScriptedEngine(echo))
    with Raw(served.port) as client:
        client.request(
            "/predict",
            method="POST",
            headers={
                "Transfer-Encoding": "chunked",
                "Content-Type": "application/x-www-form-urlencoded; charset=UTF-8",
            },
        )
        client.send(b"7\r\nprompt=\r\n4\r\nh%C3\r\n3\r\n%A9\r\n0\r\n\r\n")
        assert client.response().text == "hé"


def test_expect_continue(serve: Serve) -> None:
    served = serve(ScriptedEngine(echo))
    with Raw(served.port) as client:
        client.send(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\nExpect: 100-continue\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
        )
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        client.send(b"prompt=x")
        assert client.response().text == "x"


@pytest.mark.parametrize("keep_alive", [False, True])
def test_http_1_0_ends_with_the_connection(served: Served, client: Raw, keep_alive: bool) -> None:
    headers = {"Connection": "keep-alive"} if keep_alive else {}
    client.request("/predict?prompt=x", version="HTTP/1.0", headers=headers)
    job = served.engine.next_job()
    job.say("no ")
    job.say("chunks")
    job.end()
    head, body = client.read_all().split(b"\r\n\r\n", 1)
    assert body == b"no chunks"
    assert b"transfer-encoding" not in head.lower()
    assert b"keep-alive" not in head.lower()


def test_http_1_0_keeps_the_connection_after_replies_of_known_length(
    served: Served, client: Raw
) -> None:
    for _ in range(2):
        client.request("/health", version="HTTP/1.0", headers={"Connection": "keep-alive"})
        assert client.response().text == '{"status": "ok"}'


def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    served = serve(ScriptedEngine(echo))
    with Raw(served.port) as client:
        prompts = [f"number-{number}" for number in range(20)]
        client.send(
            b"".join(
                f"GET /predict?prompt={prompt} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
                for prompt in prompts
            )
        )
        assert [client.response().text for _ in prompts] == prompts


def test_chat_renders_the_template(serve: Serve) -> None:
    served = serve(settings=make_settings(system_prompt="be brief"))
    fields = [("messages", "a"), ("messages", "b"), ("messages", "c"), ("temperature", "0.5")]
    with Raw(served.port) as client:
        client.request("/chat?messages=", fields[:2])
        served.engine.next_job().end()
        assert client.response().status == 200, "the query's messages follow the body's"
        client.request("/chat", [*fields, ("replyPrefix", "Well,")])
        job = served.engine.next_job()
        assert job.text == "be brief|a|b|c\nWell,"
        assert [span.is_data for span in job.prompt] == [True, False, True]
        assert job.options["temperature"] == 0.5
        job.end()
        client.response()
        client.request("/chat", [*fields, ("system", "be verbose")])
        job = served.engine.next_job()
        assert job.text == "be verbose|a|b|c\n"
        job.end()


def test_template_that_needs_a_system_prompt(serve: Serve) -> None:
    served = serve(template=PlainTemplate(needs_system_prompt=True))
    with Raw(served.port) as client:
        client.request("/chat", {"messages": "a"})
        reply = client.response()
        assert (reply.status, reply.text.count("\n")) == (400, 1)
        assert "system" in reply.text


def test_options_reach_the_engine(served: Served, client: Raw) -> None:
    client.request("/predict", {"prompt": "x", "topK": "3", "stop": ["a", "b"], "stopRegex": "c+"})
    job = served.engine.next_job()
    assert job.options["top_k"] == 3
    assert job.options["stop"] == ["a", "b"]
    assert job.options["stop_regex"] == ["c+"]
    assert job.options["seed"] is None
    assert job.options["temperature"] == 0.8
    job.end()


def test_connection_over_the_limit_is_told_so(serve: Serve) -> None:
    served = serve(limits=Limits(connections=1))
    with Raw(served.port) as first, Raw(served.port) as second:
        first.request("/health")
        assert first.response().status == 200
        second.request("/health")
        reply = second.response()
        assert (reply.status, reply.text) == (503, "too many connections\n")
        assert "x-request-id" in reply.headers
        assert second.read_all() == b""
