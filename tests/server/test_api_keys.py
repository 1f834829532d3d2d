"""Who has no key is told so, and nothing of what he sends is read."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_api.api_keys import ApiKeys

from ..support.http2 import Http2Client
from ..support.raw import Raw
from ..support.scripted import ScriptedEngine, echo
from ..support.serving import Served, make_settings
from .conftest import Serve
from .test_lifecycle import process
from .test_refusals import FORM, assert_refused

KEY = "sk-Secret~1"


@pytest.fixture
def locked(serve: Serve) -> Served:
    return serve(ScriptedEngine(echo), make_settings(api_keys=ApiKeys([KEY, "other"])))


@pytest.fixture
def client(locked: Served) -> Iterator[Raw]:
    with Raw(locked.port) as client:
        yield client


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"authorization": f"bearer  {KEY} "},
        {"X-Api-Key": KEY},
        {"X-Api-Key": "other"},
        {"X-Api-Key": KEY, "Authorization": "Basic eDp5"},
        {"X-Api-Key": "wrong", "Authorization": f"Bearer {KEY}"},
    ],
)
def test_who_has_a_key_is_served(client: Raw, headers: dict[str, str]) -> None:
    client.request("/predict", {"prompt": "x"}, headers=headers)
    assert client.response().text == "x"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY.lower()}"},
        {"X-Api-Key": ""},
        {"X-Api-Key": f"{KEY},other"},
        {"X-Api-Key": "\xe4"},
    ],
)
@pytest.mark.parametrize("path", ["/predict?prompt=x", "/chat?messages=x", "/requests/1"])
def test_who_has_none_is_not(client: Raw, path: str, headers: dict[str, str]) -> None:
    client.request(path, headers=headers)
    reply = client.response()
    assert_refused(reply, 401, "Authorization: Bearer KEY", "X-Api-Key: KEY")
    assert reply.headers["www-authenticate"] == "bearer"
    client.request(f"/predict?prompt=x&apiKey={KEY}", headers={"X-Api-Key": KEY})
    assert_refused(client.response(), 400, "apiKey")  # and never in an address


def test_refused_before_the_body(client: Raw) -> None:
    client.request("/predict", method="POST", headers=FORM | {"Content-Length": "1000000"})
    assert_refused(client.response(), 401)


def test_health_is_open(client: Raw) -> None:
    client.request("/health")
    assert client.response().status == 200


def test_http2(locked: Served) -> None:
    with Http2Client(locked.port) as client:
        answer = client.get("/predict", {"prompt": "x"})
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
        stream = client.request("/predict", {"prompt": "x"}, authorization=f"Bearer {KEY}")
        assert client.answer(stream).text == "x"


def test_keys_and_what_is_taken_for_one_are_not_logged(
    locked: Served, client: Raw, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for key in (KEY, "sk-Wrong"):
        client.request("/predict", {"prompt": "x"}, headers={"X-Api-Key": key})
        client.response()
    locked.settle()
    assert " /predict 401 error" in caplog.text
    assert "sk-" not in caplog.text


@pytest.mark.parametrize(
    "field", [("x-api-key", f" {KEY}"), ("x-api-key", f"{KEY}\n"), ("te", KEY)]
)
def test_nor_is_one_in_a_malformed_header(
    locked: Served, caplog: pytest.LogCaptureFixture, field: tuple[str, str]
) -> None:
    caplog.set_level(logging.DEBUG, "llm_api")
    with Http2Client(locked.port) as client:
        client.h2.config.validate_outbound_headers = False
        client.h2.config.normalize_outbound_headers = False
        client.begin([*client.fields("/health"), field], end_stream=True)
        client.wait_closed()
    locked.settle()
    assert "closed the connection of 127.0.0.1: " in caplog.text
    assert "sk-" not in caplog.text


def test_strangers_cannot_push_records_out(locked: Served, client: Raw) -> None:
    client.request("/predict", {"prompt": "x"})
    refused = client.response().headers["x-request-id"]
    assert locked.app.ledger.get(refused) is None


def test_reload(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("old")
    with process(api_key_file=path) as server, Raw(server.port) as client:

        def status(key: str) -> int:
            client.request("/requests/0", headers={"X-Api-Key": key})
            return client.response().status

        assert (status("old"), status("new")) == (404, 401)
        path.write_text("new\nbad key")
        server.signal(signal.SIGHUP)
        server.read_log("the old API keys stay in use: .*line 2: the key has white space")
        assert (status("old"), status("new")) == (404, 401)
        path.write_text("new")
        server.signal(signal.SIGHUP)
        server.read_log("the API keys have been read again: 1")
        assert (status("old"), status("new")) == (401, 404)


def test_nothing_to_reload() -> None:
    """By default SIGHUP would end the process."""
    with process() as server, Raw(server.port) as client:
        server.signal(signal.SIGHUP)
        client.request("/health")
        assert client.response().status == 200
        server.signal(signal.SIGTERM)
        assert server.exit_status() == 0
