"""Whatever is sent as a form is answered, and never with a 500."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llm_api.form import FormError, parse_fields, read_chat_form, read_predict_form
from llm_api.limits import Limits
from llm_api.options import FIELDS

from ..support.raw import Raw
from ..support.scripted import ScriptedEngine, echo
from ..support.serving import PlainTemplate, Served, make_settings

_NAMES = ["prompt", "messages", "system", "replyPrefix", *FIELDS]
_FIELDS = st.lists(
    st.tuples(
        st.sampled_from(_NAMES) | st.text(max_size=10),
        st.text(max_size=30)
        | st.integers().map(str)
        | st.floats().map(str)
        | st.sampled_from(["true", "false", "", "%", "("]),
    ),
    max_size=6,
)
_BYTES = st.binary(max_size=200) | st.lists(
    st.sampled_from([b"prompt=", b"messages=", b"&", b"%", b"%41", b"%ff", b"+", b"=", b"x", b";"]),
    max_size=20,
).map(b"".join)


@pytest.fixture(scope="module")
def echoing() -> Iterator[Served]:
    served = Served(ScriptedEngine(echo), make_settings(), PlainTemplate(), Limits())
    yield served
    served.close()


fuzz = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@fuzz
@given(path=st.sampled_from(["/predict", "/chat"]), fields=_FIELDS, extra=st.text(max_size=20))
def test_fields(echoing: Served, path: str, fields: list[tuple[str, object]], extra: str) -> None:
    name = "prompt" if path == "/predict" else "messages"
    with Raw(echoing.port) as client:
        client.request(path, [(name, extra), *fields])
        reply = client.response()
        assert reply.is_whole
        assert reply.status in (200, 400)
        if reply.status == 400:
            assert reply.text.endswith("\n")
            assert reply.text.count("\n") == 1


@fuzz
@given(body=_BYTES)
def test_bytes(echoing: Served, body: bytes) -> None:
    with Raw(echoing.port) as client:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        client.request("/predict", body=body, headers=headers)
        assert client.response().status in (200, 400)
        client.request("/health")
        assert client.response().status == 200


@fuzz
@given(head=st.binary(max_size=100), tail=st.sampled_from([b"", b"\r\n\r\n"]))
def test_anything(echoing: Served, head: bytes, tail: bytes) -> None:
    """The server may answer or close, and serves the next client either way."""
    with Raw(echoing.port) as client:
        client.send(b"GET /predict?" + head + tail)
    with Raw(echoing.port) as client:
        client.request("/predict", {"prompt": "still there"})
        assert client.response().text == "still there"


@given(query=_BYTES, body=_BYTES)
def test_forms_fail_in_one_way(query: bytes, body: bytes) -> None:
    try:
        fields = parse_fields(query, body, 100)
    except FormError:
        return
    for read in (read_predict_form, read_chat_form):
        with contextlib.suppress(FormError):
            read(fields)


@given(texts=st.lists(st.text(), min_size=1), system=st.text())
def test_texts_arrive_as_they_were_sent(texts: list[str], system: str) -> None:
    from urllib.parse import urlencode

    query = urlencode({"messages": texts[1:]}, doseq=True).encode()
    body = urlencode({"messages": texts[:1], "system": system}, doseq=True).encode()
    form = read_chat_form(parse_fields(query, body, 1000))
    assert form.messages == tuple(texts)
    assert form.system == system
