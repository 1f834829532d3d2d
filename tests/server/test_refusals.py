"""Errors before the first byte: a status, and one line of text that says what to change."""

from __future__ import annotations

import subprocess

import pytest

from llm_api.errors import (
    EngineClosedError,
    PromptTooLongError,
    QueueFullError,
    StopPatternError,
)
from llm_api.limits import Limits
from llm_api.templates.errors import TemplateError

from ..support.raw import Raw, Response
from ..support.scripted import ScriptedEngine, echo
from ..support.serving import PlainTemplate, Served
from .conftest import Serve

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def assert_refused(reply: Response, status: int, *mentioned: str) -> None:
    assert reply.status == status, reply
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert "x-request-id" in reply.headers
    assert reply.text.endswith("\n")
    assert reply.text.count("\n") == 1
    for text in mentioned:
        assert text in reply.text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "BREW"])
def test_other_methods(client: Raw, method: str) -> None:
    client.request("/predict?prompt=x", method=method)
    reply = client.response()
    assert_refused(reply, 405, "only GET and POST methods supported")
    assert reply.headers["allow"] == "get, post"
    client.request("/health")
    assert client.response().status == 200


def test_head_has_no_body(client: Raw) -> None:
    client.request("/predict?prompt=x", method="HEAD")
    assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 405 ")
    client.request("/health")
    assert client.response().status == 200


@pytest.mark.parametrize("path", ["/", "/predict/", "/predic", "/requests", "/%70redict", "//"])
def test_unknown_paths(client: Raw, path: str) -> None:
    client.request(path)
    assert_refused(client.response(), 404, "/predict", "/chat")


def test_chat_is_not_there_without_a_template(serve: Serve) -> None:
    with Raw(serve(template=None).port) as client:
        client.request("/chat", {"messages": "x"})
        reply = client.response()
        assert_refused(reply, 404, "/predict")
        assert "/chat" not in reply.text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "application/json"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": "text/plain"},
        FORM | {"Content-Encoding": "gzip"},
        {"Content-Type": "application/x-www-form-urlencoded; charset=latin-1"},
    ],
)
def test_bodies_of_other_types(client: Raw, headers: dict[str, str]) -> None:
    client.request("/predict", body=b"prompt=x", headers=headers)
    assert_refused(client.response(), 415)
    client.request("/health")
    assert client.response().status == 200, "the connection goes on"


@pytest.mark.parametrize(
    ("target", "mentioned"),
    [
        ("/predict", "prompt"),
        ("/predict?prompt=", "prompt"),
        ("/predict?prompt=a&prompt=b", "prompt"),
        ("/predict?prompt=a&topK=1&topK=2", "topK"),
        ("/predict?prompt=a&promt=b", "did you mean prompt"),
        ("/predict?prompt=a&top_k=1", "did you mean topK"),
        ("/predict?prompt=a&messages=b", "messages"),
        ("/predict?prompt=a&temperature=hot", "temperature"),
        ("/predict?prompt=a&temperature=NaN", "temperature"),
        ("/predict?prompt=a&temperature=1e999", "temperature"),
        ("/predict?prompt=a&topP=1.5", "topP"),
        ("/predict?prompt=a&tokens=-1", "tokens"),
        ("/predict?prompt=a&ignoreEos=perhaps", "ignoreEos"),
        ("/predict?prompt=%zz", "%25"),
        ("/predict?prompt=100%", "%25"),
        ("/predict?prompt=%ff", "UTF-8"),
        ("/predict?%C0%80=x&prompt=a", "UTF-8"),
        ("/predict?prompt=x&" + "&".join(["stop=a"] * 1000), "fields"),
        ("/chat", "messages"),
        ("/chat?messages=a&messages=b", "odd"),
        ("/chat?messages=a&prompt=b", "prompt"),
        ("/chat?messages=a&system=b&system=c", "system"),
    ],
)
def test_bad_fields(client: Raw, target: str, mentioned: str) -> None:
    client.request(target)
    assert_refused(client.response(), 400, mentioned)


@pytest.mark.parametrize(
    ("error", "status", "mentioned"),
    [
        (PromptTooLongError(600, 512), 400, ("600", "512")),
        (StopPatternError("(", "unclosed group"), 400, ("unclosed group",)),
        (QueueFullError(16), 503, ("server is busy\n",)),
        (EngineClosedError(), 503, ("shutting down",)),
        (ValueError("secret"), 500, ("internal error\n",)),
    ],
)
def test_what_the_engine_does_not_take(
    served: Served, client: Raw, error: Exception, status: int, mentioned: tuple[str, ...]
) -> None:
    served.engine.refusal = error
    client.request("/predict", {"prompt": "x"})
    reply = client.response()
    assert_refused(reply, status, *mentioned)
    assert ("retry-after" in reply.headers) == isinstance(error, QueueFullError)
    served.engine.refusal = None
    client.request("/predict", {"prompt": "x"})
    served.engine.next_job().end("stop", None, "fine")
    assert client.response().text == "fine"


def test_failure_before_the_first_text(served: Served, client: Raw) -> None:
    client.request("/predict", {"prompt": "x"})
    served.engine.next_job().fail()
    reply = client.response()
    assert_refused(reply, 500, "inference failed\n")


def test_time_limit_before_the_first_text(served: Served, client: Raw) -> None:
    client.request("/predict", {"prompt": "x", "maxTime": "0.1"})
    served.engine.next_job().end("length")
    assert_refused(client.response(), 503, "maxTime")


def test_template_that_fails(serve: Serve) -> None:
    class Failing(PlainTemplate):
        def render(self, *args: object) -> tuple[()]:
            raise TemplateError("exec", 3, "nothing to range over")

    with Raw(serve(template=Failing()).port) as client:
        client.request("/chat", {"messages": "x"})
        assert_refused(client.response(), 500, "template", "nothing to range over")


@pytest.mark.parametrize("size", [33 << 10, 200 << 10])
def test_too_many_headers(client: Raw, size: int) -> None:
    client.request("/health", headers={"X-Padding": "x" * size})
    assert_refused(client.response(), 431)


@pytest.mark.parametrize(
    ("head", "mentioned"),
    [
        ("X: y", "Host"),
        ("Host: a\r\nHost: b", "host"),
        ("Host: a\r\nContent-Length: x", "Content-Length"),
        ("Host: a\r\nContent-Length: -1", "Content-Length"),
        ("Host: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked", "Transfer-Encoding"),
        ("Host: a\r\nTransfer-Encoding: gzip, chunked", "Transfer-Encoding"),
    ],
)
def test_requests_that_are_not_valid_http(client: Raw, head: str, mentioned: str) -> None:
    client.send(f"POST /predict HTTP/1.1\r\n{head}\r\n\r\n".encode())
    assert_refused(client.response(), 400, mentioned)


@pytest.mark.parametrize("version", ["HTTP/1.2", "HTTP/1.9"])
def test_versions_without_a_way_to_break_off(client: Raw, version: str) -> None:
    client.send(f"GET /predict?prompt=x {version}\r\nHost: a\r\n\r\n".encode())
    assert_refused(client.response(), 505, version, "HTTP/1.1")
    assert client.read_all() == b""


def test_chunks_of_http_1_0(client: Raw) -> None:
    """Another request may hide in what an old proxy takes for no body, or for one."""
    headers = FORM | {"Transfer-Encoding": "chunked", "Connection": "keep-alive"}
    client.request("/predict", method="POST", version="HTTP/1.0", headers=headers)
    # The head alone decides; a body that nobody reads would make the close a reset.
    assert_refused(client.response(), 400, "Content-Length")
    assert client.read_all() == b""


def test_any_number_of_fields_may_be_allowed(serve: Serve) -> None:
    with Raw(serve(ScriptedEngine(echo), limits=Limits(fields=1500)).port) as client:
        client.request("/predict?prompt=x&" + "&".join(["seed=1"] * 1499))
        assert_refused(client.response(), 400, "seed")
        client.request("/predict?prompt=x&" + "&".join(["seed=1"] * 1500))
        assert_refused(client.response(), 400, "1501 fields", "1500")


class TestTooLarge:
    SMALL = Limits(body=1000, discarded_body=1 << 20)

    def test_the_limit_itself_is_taken(self, serve: Serve) -> None:
        with Raw(serve(ScriptedEngine(echo), limits=self.SMALL).port) as client:
            prompt = "x" * (1000 - len("prompt="))
            client.request("/predict", {"prompt": prompt})
            assert client.response().text == prompt
            client.request("/predict", {"prompt": prompt + "x"})
            assert_refused(client.response(), 413, "1000")
            client.request("/health")
            assert client.response().status == 200

    def test_answered_before_the_body_has_come(self, serve: Serve) -> None:
        with Raw(serve(limits=self.SMALL).port) as client:
            headers = FORM | {"Content-Length": "1001"}
            client.request("/predict", method="POST", headers=headers)
            assert_refused(client.response(), 413)

    def test_chunks(self, serve: Serve) -> None:
        with Raw(serve(limits=self.SMALL).port) as client:
            client.request(
                "/predict", method="POST", headers=FORM | {"Transfer-Encoding": "chunked"}
            )
            client.send(b"3e9\r\n" + b"x" * 1001 + b"\r\n")
            assert_refused(client.response(), 413)
            client.send(b"0\r\n\r\n")
            client.request("/health")
            assert client.response().status == 200

    def test_sender_that_never_ends_is_cut_off(self, serve: Serve) -> None:
        with Raw(serve(limits=self.SMALL).port) as client:
            headers = FORM | {"Content-Length": str(1 << 40)}
            client.request("/predict", method="POST", headers=headers)
            with pytest.raises(ConnectionError):
                client.send_forever(b"x" * 65536)

    @pytest.mark.parametrize(
        "options", [(), ("-H", "Expect:"), ("-H", "Transfer-Encoding: chunked")]
    )
    def test_curl_sees_it(self, served: Served, options: tuple[str, ...]) -> None:
        result = subprocess.run(
            [
                *("curl", "-s", "-S", *options, "--data-binary", "@-"),
                *("-w", "%{http_code}", f"http://127.0.0.1:{served.port}/predict"),
            ],
            check=False,
            input=b"prompt=" + b"x" * (8 << 20),
            capture_output=True,
            timeout=30,
        )
        assert result.stdout.endswith(b"bytes\n413"), result
        assert result.returncode == 0


class TestPromptBytes:
    SMALL = Limits(prompt=10)

    @pytest.mark.parametrize("prompt", ["x" * 10, "\xe4" * 5])
    def test_the_limit_itself_is_taken(self, serve: Serve, prompt: str) -> None:
        with Raw(serve(ScriptedEngine(echo), limits=self.SMALL).port) as client:
            client.request("/predict", {"prompt": prompt})
            assert client.response().text == prompt
            client.request("/predict", {"prompt": prompt + "x"})
            assert_refused(client.response(), 413, "prompt", "11 bytes", "at most 10")

    def test_what_the_template_adds_counts(self, serve: Serve) -> None:
        with Raw(serve(ScriptedEngine(echo), limits=self.SMALL).port) as client:
            client.request("/chat", {"messages": "x" * 9})
            assert client.response().status == 200
            client.request("/chat", {"messages": "x" * 9, "replyPrefix": "y"})
            assert_refused(client.response(), 413, "prompt", "11 bytes")


@pytest.mark.parametrize("head", [b"GARBAGE", b"GET / HTTP/1.1\r\nBad header"])
def test_bytes_that_are_not_http(client: Raw, head: bytes) -> None:
    client.send(head + b"\r\n\r\n")
    reply = client.response()
    assert (reply.status, reply.text) == (400, "not a valid HTTP request\n")
    assert reply.headers["x-request-id"]


def test_refused_length_has_a_post_mortem(served: Served) -> None:
    with Raw(served.port) as client:
        client.send(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n")
        reply = client.response()
        assert reply.status == 400
    with Raw(served.port) as client:
        client.request(f"/requests/{reply.headers['x-request-id']}")
        assert client.response().status == 200
