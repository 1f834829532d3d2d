"""Web pages cannot use a server that is not theirs."""

from __future__ import annotations

import socket
import subprocess

import pytest

from llm_api.address import Address
from llm_api.api_keys import ApiKeys
from llm_api.server.gate import Gate
from llm_api.server.reply import Refusal

from ..support.http2 import Http2Client
from ..support.raw import Raw, Response
from ..support.scripted import ScriptedEngine, echo
from ..support.serving import Served, make_settings
from .conftest import Serve
from .test_refusals import FORM, assert_refused

PAGE = "https://app.example"
NOBODY: frozenset[str] = frozenset()


@pytest.fixture
def served(serve: Serve) -> Served:
    """As by default: on a loopback address, without allowed hosts or origins."""
    return serve(ScriptedEngine(echo), make_settings(allowed_hosts=NOBODY))


@pytest.fixture
def open_served(serve: Serve) -> Served:
    settings = make_settings(
        allowed_hosts=frozenset({"model.example"}),
        cors_origins=frozenset({PAGE}),
        api_keys=ApiKeys(["key"]),
    )
    return serve(ScriptedEngine(echo), settings)


def ask(served: Served, method: str | None = None, **headers: str) -> Response:
    """Ask for a prediction, by GET or POST; underscores in names stand for dashes."""
    named = {"Host": "localhost", **{name.replace("_", "-"): headers[name] for name in headers}}
    with Raw(served.port) as client:
        if method == "POST":
            client.request("/predict", {"prompt": "x"}, headers=named)
        else:
            client.request("/predict?prompt=x", method=method, headers=named)
        return client.response()


def ask_http2(served: Served, authority: str) -> int | None:
    with Http2Client(served.port) as client:
        fields = dict(client.fields("/predict?prompt=x")) | {":authority": authority}
        return client.answer(client.begin(list(fields.items()), end_stream=True)).status


KNOWN = ["localhost", "LOCALHOST", "localhost.", "127.0.0.1", "127.8.9.10", "[::1]", "[0::1]"]
UNKNOWN = ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[::2]"]
UNKNOWN += ["localhosts", "0.0.0.0", "model.example", "127.1", "127.0.0.1%25.evil.example"]


@pytest.mark.parametrize("port", ["", ":8080", ":"])
@pytest.mark.parametrize("name", KNOWN)
def test_known_hosts(served: Served, name: str, port: str) -> None:
    assert ask(served, Host=name + port).text == "x"
    assert ask_http2(served, name + port) == 200


@pytest.mark.parametrize("port", ["", ":8080"])
@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_hosts(served: Served, name: str, port: str) -> None:
    """This is what DNS rebinding looks like: page and request are of the same origin."""
    host = name + port
    for method in ("GET", "POST"):
        reply = ask(served, method, Host=host, Origin=f"http://{host}", Sec_Fetch_Site="none")
        assert_refused(reply, 403, host, "-allowed-hosts", "localhost")
    assert ask_http2(served, host) == 403
    assert served.engine.jobs.empty()


def ask_absolute(served: Served, target: str, **headers: str) -> Response:
    """Ask for a URL, as clients ask a proxy."""
    named = {"Host": "evil.example", **headers}
    with Raw(served.port) as client:
        client.request(target, headers=named)
        return client.response()


@pytest.mark.parametrize("scheme", ["http", "https", "HTTP"])
def test_absolute_targets(served: Served, scheme: str) -> None:
    """The name in the target is the one that counts (RFC 9112, section 3.2.2)."""
    reply = ask_absolute(served, f"{scheme}://localhost:80/predict?prompt=a?b")
    assert (reply.status, reply.text) == (200, "a?b")
    reply = ask_absolute(served, f"{scheme}://evil.example/predict?prompt=x", Host="localhost")
    assert_refused(reply, 403, "evil.example")
    for target in (f"{scheme}://localhost", f"{scheme}://localhost?prompt=x"):
        assert_refused(ask_absolute(served, target), 404, "/predict")


def test_absolute_targets_and_origins(served: Served) -> None:
    target = "http://localhost:1/predict?prompt=x"
    assert ask_absolute(served, target, Origin="http://localhost:1").text == "x"
    assert ask_absolute(served, target, Origin="http://evil.example").status == 403


@pytest.mark.parametrize("name", ["", ":80", "user@localhost", "local host", "localhost:x"])
def test_bad_absolute_targets(served: Served, name: str) -> None:
    assert ask_absolute(served, f"http://{name}/predict?prompt=x").status == 400


def test_absolute_targets_need_a_host_header_too(served: Served) -> None:
    with Raw(served.port) as client:
        client.send(b"GET http://localhost/health HTTP/1.1\r\n\r\n")
        assert_refused(client.response(), 400, "Host")
        client.request("http://localhost/health", version="HTTP/1.0")
        assert client.response().status == 200


def test_absolute_targets_are_not_for_http2(served: Served) -> None:
    with Http2Client(served.port) as client:
        assert client.get("http://localhost/health").status == 403
        fields = dict(client.fields("http://localhost/health")) | {":authority": "localhost"}
        assert client.answer(client.begin(list(fields.items()), end_stream=True)).status == 404


def test_allowed_hosts(open_served: Served) -> None:
    for host in ("model.example", "Model.Example:8443", "localhost"):
        assert ask(open_served, Host=host, X_Api_Key="key").text == "x"
    assert ask(open_served, Host="other.example").status == 403, "before the key is asked for"


def test_http_1_0_needs_no_host(served: Served) -> None:
    with Raw(served.port) as client:
        client.request("/predict?prompt=x", version="HTTP/1.0")
        assert client.response().text == "x"


@pytest.mark.parametrize(
    ("address", "family", "is_asked"),
    [
        ("127.0.0.1", socket.AF_INET, True),
        ("::1", socket.AF_INET6, True),
        ("0.0.0.0", socket.AF_INET, False),
    ],
)
def test_an_address_that_others_reach_is_served_under_all_names(
    address: str, family: int, is_asked: bool
) -> None:
    gate = Gate(make_settings(allowed_hosts=NOBODY).server)
    with socket.socket(family) as listening:
        listening.bind((address, 0))
        gate.listen_on([listening])
    assert gate._has_known_hosts == is_asked
    assert Gate(make_settings().server)._has_known_hosts, "some were given"


def test_the_bound_name_is_known() -> None:
    settings = make_settings(allowed_hosts=NOBODY, address=Address("My-Machine", 0))
    Gate(settings.server)._check_host("my-machine:8080")


def test_no_name_is_not_the_name_of_all_interfaces() -> None:
    gate = Gate(make_settings(address=Address("", 0)).server)
    for host in (".", ".:80", ":80", ""):
        with pytest.raises(Refusal, match="-allowed-hosts"):
            gate._check_host(host)


FOREIGN = [
    "http://evil.example",
    "null",
    "http://localhost",
    "http://localhost:1",
    "https://localhost:{port}",
    "http://localhost:{port}.evil.example",
    "http://127.0.0.1:{port}",
    f"{PAGE}.evil.example",
    "",
]


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
@pytest.mark.parametrize("origin", FOREIGN)
def test_foreign_origins(served: Served, open_served: Served, origin: str, method: str) -> None:
    for server in (served, open_served):
        shown = origin.format(port=server.port)
        reply = ask(
            server,
            method,
            Host=f"localhost:{server.port}",
            Origin=shown,
            X_Api_Key="key",
            Access_Control_Request_Method="POST",
        )
        assert_refused(reply, 403, shown, "-cors-origins")
        assert "access-control-allow-origin" not in reply.headers
        assert server.engine.jobs.empty()


def test_form_post_from_a_page_is_refused_before_its_body(served: Served) -> None:
    with Raw(served.port) as client:
        headers = FORM | {"Host": "localhost", "Origin": "http://x", "Content-Length": "9"}
        client.request("/predict", method="POST", headers=headers)
        assert_refused(client.response(), 403)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "whatever"])
def test_pages_that_send_no_origin(served: Served, open_served: Served, site: str) -> None:
    """An image, a link or a frame: a GET that tells nothing else."""
    for server in (served, open_served):
        reply = ask(server, Sec_Fetch_Site=site, X_Api_Key="key")
        assert_refused(reply, 403, "web pages", "-cors-origins")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_our_own_pages(served: Served, method: str) -> None:
    host = f"localhost:{served.port}"
    for headers in (
        {"Origin": f"http://{host}"},
        {"Origin": f"http://{host}", "Sec_Fetch_Site": "same-origin"},
        {"Origin": "https://name.of.a.proxy", "Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Site": "same-origin"},
        {"Sec_Fetch_Site": "none"},
    ):
        reply = ask(served, method, Host=host, **headers)
        assert reply.text == "x"
        assert "vary" not in reply.headers


def test_allowed_origin(open_served: Served) -> None:
    reply = ask(open_served, Origin=PAGE, Sec_Fetch_Site="cross-site", X_Api_Key="key")
    assert reply.text == "x"
    told = {name: text for name, text in reply.headers.items() if name.startswith("access-")}
    assert told == {
        "access-control-allow-origin": PAGE,
        "access-control-expose-headers": "x-request-id",
    }
    assert reply.headers["vary"] == "origin"
    reply = ask(open_served, Origin=PAGE)
    assert reply.status == 401
    assert reply.headers["access-control-allow-origin"] == PAGE, "the page may know why"


def test_without_an_origin_caches_are_told_all_the_same(open_served: Served) -> None:
    reply = ask(open_served, X_Api_Key="key")
    assert reply.headers["vary"] == "origin"
    assert "access-control-allow-origin" not in reply.headers


@pytest.mark.parametrize("http2", [False, True])
def test_preflight(open_served: Served, http2: bool) -> None:
    """Asked without a key: a browser sends none yet."""
    options = ["-X", "OPTIONS", "-H", f"Origin: {PAGE}", "-w", "%{http_code}", "-D", "-"]
    options += ["-H", "Access-Control-Request-Method: POST"]
    options += ["-H", "Access-Control-Request-Headers: authorization,x-api-key"]
    options += ["--http2-prior-knowledge"] * http2
    url = f"http://localhost:{open_served.port}/predict"
    done = subprocess.run(
        ["curl", "-sS", *options, url], capture_output=True, text=True, check=True
    )
    text = done.stdout.lower()
    assert text.endswith("204")
    for line in (
        f"access-control-allow-origin: {PAGE}",
        "access-control-allow-methods: get, post",
        "access-control-allow-headers: authorization, content-type, x-api-key",
        "vary: origin",
    ):
        assert line in text.splitlines()
    assert "content-length" not in text


def test_the_connection_goes_on_after_a_preflight(open_served: Served) -> None:
    with Raw(open_served.port) as client:
        headers = {"Host": "localhost", "Origin": PAGE, "Access-Control-Request-Method": "POST"}
        client.request("/predict", method="OPTIONS", headers=headers)
        assert client.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 204 ")
        client.request("/health", headers={"Host": "localhost"})
        assert client.response().status == 200
