"""No client takes more than its share of requests at work and waiting."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_api.address import UnixAddress
from llm_api.limits import Limits
from llm_api.proxies import TrustedProxies
from llm_api.server.reply import Refusal
from llm_api.server.shares import Shares

from ..support.http2 import Http2Client
from ..support.raw import Raw
from ..support.scripted import SECONDS
from ..support.serving import Served, make_settings
from .conftest import Serve
from .test_refusals import assert_refused


@pytest.fixture
def served(serve: Serve) -> Served:
    return serve(limits=Limits(per_client=2))


def test_one_too_many(served: Served) -> None:
    """Whatever connections they come on, until one of them ends."""
    with Http2Client(served.port) as first, Raw(served.port) as second, Raw(served.port) as third:
        stream = first.request("/predict", {"prompt": "a"})
        job = served.engine.next_job()
        second.request("/predict", {"prompt": "b"})
        served.engine.next_job()
        third.request("/predict", {"prompt": "c"})
        reply = third.response()
        assert_refused(reply, 429, "2 requests of this client", "wait")
        assert reply.headers["retry-after"] == "1"
        third.request("/health")
        assert third.response().status == 200
        job.end("stop", None, "done")
        assert first.answer(stream).text == "done"
        third.request("/predict", {"prompt": "c"})
        served.engine.next_job().end("stop", None, "served")
        assert third.response().text == "served"


def test_who_leaves_or_is_refused_takes_nothing(served: Served) -> None:
    for _ in range(3):
        with Raw(served.port) as client:
            client.request("/predict", {"prompt": "x"})
            job = served.engine.next_job()
        assert job.cancelled.wait(SECONDS)
        served.run(served.app.generations.wait_for_all)
    with Raw(served.port) as client:
        for _ in range(3):
            client.request("/predict", {"prompt": ""})
            assert client.response().status == 400


def test_clients_of_a_trusted_proxy_have_shares_of_their_own(serve: Serve) -> None:
    settings = make_settings(trusted_proxies=TrustedProxies.parse(["127.0.0.0/8"]))
    served = serve(settings=settings, limits=Limits(per_client=1))
    with Raw(served.port) as one, Raw(served.port) as same, Raw(served.port) as other:
        for client, address in ((one, "192.0.2.1"), (same, "192.0.2.1"), (other, "192.0.2.2")):
            headers = {"X-Forwarded-For": f"203.0.113.9, {address}"}
            client.request("/predict", {"prompt": "x"}, headers=headers)
            if client is same:
                assert client.response().status == 429
            else:
                job = served.engine.next_job()
        job.end("stop", None, "y")
        assert other.response().text == "y"


def test_clients_of_a_unix_socket_share_one(serve: Serve, tmp_path: Path) -> None:
    settings = make_settings(address=UnixAddress(str(tmp_path / "s"), 0o600))
    served = serve(settings=settings, limits=Limits(per_client=1))
    with Raw(served.port) as one, Raw(served.port) as other:
        one.request("/predict", {"prompt": "x"})
        served.engine.next_job()
        other.request("/predict", {"prompt": "x"})
        assert other.response().status == 429


def test_clients_by_address() -> None:
    shares = Shares(1)
    give_back = shares.take("10.0.0.1")
    for other in ("10.0.0.2", "2001:db8::1", "2001:db8:0:1::1", "fe80::1%eth0", "0.0.0.0", ""):
        shares.take(other)
    for same in ("10.0.0.1", "::ffff:10.0.0.1", "2001:db8::2:3:4:5", "fe80::2%eth1"):
        with pytest.raises(Refusal):
            shares.take(same)
    give_back()
    shares.take("::ffff:10.0.0.1")


def test_no_limit() -> None:
    shares = Shares(0)
    for _ in range(1000):
        shares.take("10.0.0.1")
    assert not shares._taken
