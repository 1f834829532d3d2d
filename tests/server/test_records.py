"""Post-mortems and log lines."""

from __future__ import annotations

import json
import logging

import pytest

from llm_api.proxies import TrustedProxies
from llm_api.server.ledger import Ledger, Record

from ..support.http2 import Http2Client
from ..support.raw import Raw
from ..support.scripted import ScriptedEngine, echo
from ..support.serving import Served, make_settings
from .conftest import Serve


def post_mortem(served: Served, request_id: str) -> dict[str, object]:
    with Raw(served.port) as client:
        client.request(f"/requests/{request_id}")
        reply = client.response()
        assert reply.status == 200
        assert reply.headers["content-type"] == "application/json; charset=utf-8"
        told: dict[str, object] = json.loads(reply.body)
        return told


@pytest.mark.parametrize(
    ("trusted", "client_address"), [([], "127.0.0.1"), (["127.0.0.0/8"], "203.0.113.5")]
)
@pytest.mark.parametrize("http2", [False, True])
def test_client_in_the_log(
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
    trusted: list[str],
    client_address: str,
    http2: bool,
) -> None:
    caplog.set_level(logging.INFO, "llm_api.requests")
    settings = make_settings(trusted_proxies=TrustedProxies.parse(trusted))
    served = serve(ScriptedEngine(echo), settings)
    forwarded = {"X-Forwarded-For": "198.51.100.1, 203.0.113.5"}
    if http2:
        with Http2Client(served.port) as client:
            fields = client.fields("/predict?prompt=x", **{"x-forwarded-for": "203.0.113.5"})
            client.answer(client.begin(fields, end_stream=True))
    else:
        with Raw(served.port) as client:
            client.request("/predict", {"prompt": "x"}, headers=forwarded)
            assert client.response().status == 200
    served.settle()
    assert caplog.messages[-1].endswith(f" client={client_address}")


@pytest.mark.parametrize("reason", ["stop", "length", "stopRegex"])
def test_post_mortem(served: Served, client: Raw, reason: str) -> None:
    client.request("/predict", {"prompt": "a secret prompt"})
    job = served.engine.next_job()
    job.say("a secret ")
    job.end(reason, None, "reply")
    request_id = client.response().headers["x-request-id"]
    told = post_mortem(served, request_id)
    assert "secret" not in json.dumps(told)
    assert told["id"] == request_id
    assert told["endpoint"] == "/predict"
    assert told["state"] == "finished"
    assert told["status"] == 200
    assert told["finishReason"] == reason
    assert (told["promptTokens"], told["completionTokens"]) == (3, 2)
    assert (told["queueSeconds"], told["prefillSeconds"], told["decodeSeconds"]) == (
        0.001,
        0.002,
        0.003,
    )


def test_post_mortem_in_progress_and_of_an_error(served: Served, client: Raw) -> None:
    client.request("/predict", {"prompt": "x"})
    job = served.engine.next_job()
    job.say("y")
    head = client.read_until(b"\r\n\r\n").decode()
    request_id = head.lower().split("x-request-id: ")[1][:16]
    told = post_mortem(served, request_id)
    assert (told["state"], told["finishReason"]) == ("running", None)
    job.fail()
    client.read_all()
    told = post_mortem(served, request_id)
    assert (told["state"], told["finishReason"], told["status"]) == ("finished", "error", 200)


def test_post_mortem_of_a_client_that_left(served: Served, client: Raw) -> None:
    client.request("/predict", {"prompt": "x"})
    job = served.engine.next_job()
    job.say("y")
    request_id = client.read_until(b"\r\n\r\n").decode().lower().split("x-request-id: ")[1][:16]
    client.close()
    served.run(served.app.generations.wait_for_all)
    assert post_mortem(served, request_id)["finishReason"] == "cancelled"


def test_post_mortem_of_a_refused_request(served: Served, client: Raw) -> None:
    client.request("/predict", {"prompt": ""})
    told = post_mortem(served, client.response().headers["x-request-id"])
    assert (told["status"], told["finishReason"], told["state"]) == (400, "error", "finished")


@pytest.mark.parametrize("request_id", ["", "nothing", "0" * 16, "../predict"])
def test_unknown_request(client: Raw, request_id: str) -> None:
    client.request(f"/requests/{request_id}")
    assert client.response().status == 404


def test_ledger_forgets_the_oldest() -> None:
    ledger = Ledger(size=2)
    records = [Record() for _ in range(3)]
    for record in records:
        ledger.add(record)
    assert [ledger.get(record.id) for record in records] == [None, *records[1:]]


def test_one_line_a_request_without_its_texts(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    served = serve()
    with Raw(served.port) as client:
        client.request("/predict?prompt=SECRET")
        job = served.engine.next_job()
        job.end("stop", None, "SECRET")
        request_id = client.response().headers["x-request-id"]
        client.request("/chat", {"messages": ["SECRET"] * 2})
        client.response()
        client.request("/SECRET?SECRET")
        client.response()
    served.settle()
    lines = [record.getMessage() for record in caplog.records if record.name == "llm_api.requests"]
    assert len(lines) == 3
    assert lines[0].startswith(
        f"{request_id} /predict 200 stop prompt=1 cached=0 completion=1 "
        "queue=0.001s prefill=0.002s decode=0.003s total="
    )
    assert " /chat 400 error total=" in lines[1]
    assert " - 404 total=" in lines[2]
    assert "SECRET" not in caplog.text


def test_texts_are_logged_on_request(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    served = serve(ScriptedEngine(), make_settings(log_prompts=True))
    with Raw(served.port) as client:
        client.request("/predict", {"prompt": "one\ntwo"})
        job = served.engine.next_job()
        job.say("three\n")
        job.end("stop", None, "four")
        request_id = client.response().headers["x-request-id"]
    served.settle()
    lines = [record.getMessage() for record in caplog.records if record.name == "llm_api.prompts"]
    assert lines == [
        rf'{request_id} prompt "one\ntwo"',
        rf'{request_id} reply "three\nfour"',
    ]
