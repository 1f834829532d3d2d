"""Behind nginx, as contrib/nginx.conf has it: streams stream, and breaks are seen as breaks."""

from __future__ import annotations

import logging
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_api.address import Address, UnixAddress
from llm_api.errors import QueueFullError
from llm_api.proxies import TrustedProxies

from ..support import nginx
from ..support.http2 import make_certificate
from ..support.scripted import SECONDS
from ..support.serving import Served, make_settings
from .conftest import Serve

Curl = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture(scope="session")
def program(pytestconfig: pytest.Config) -> str:
    assert pytestconfig.cache is not None
    try:
        return nginx.find(Path(pytestconfig.cache.mkdir("nginx")))
    except LookupError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(params=["port", "unix"])
def served(request: pytest.FixtureRequest, serve: Serve, tmp_path: Path) -> Served:
    is_unix = request.param == "unix"
    settings = make_settings(
        address=UnixAddress(str(tmp_path / "s"), 0o600) if is_unix else Address("127.0.0.1", 0),
        trusted_proxies=TrustedProxies.parse(["unix" if is_unix else "127.0.0.1"]),
        allowed_hosts=frozenset({"llm.example"}),
    )
    return serve(settings=settings)


@pytest.fixture
def port(
    program: str, certificate: tuple[Path, Path], served: Served, tmp_path: Path
) -> Iterator[int]:
    with nginx.before(program, served.port, certificate, tmp_path) as port:
        yield port


@pytest.fixture(params=["--http1.1", "--http2"])
def version(request: pytest.FixtureRequest) -> str:
    option: str = request.param
    features = subprocess.run(["curl", "-V"], capture_output=True, text=True, check=True).stdout
    if option == "--http2" and "HTTP2" not in features:
        pytest.skip("this curl has no HTTP/2")
    return option


@pytest.fixture
def curl(port: int) -> Curl:
    def run(*options: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        name = f"llm.example:{port}"
        command = ["curl", "-sS", "-N", "-k", "--resolve", f"{name}:127.0.0.1", *options]
        return subprocess.Popen([*command, f"https://{name}/predict"], stdout=pipe, stderr=pipe)

    assert shutil.which("curl")
    return run


def test_text_streams(served: Served, curl: Curl, version: str) -> None:
    with curl(version, "-d", "prompt=x") as running:
        assert running.stdout is not None
        job = served.engine.next_job()
        for text in (b"so ", b"far ", b"so "):
            job.say(text.decode())
            assert running.stdout.read(len(text)) == text
        job.end("stop", None, "good")
        assert running.communicate(timeout=SECONDS)[0] == b"good"
    assert running.returncode == 0


def test_break_is_seen_as_a_break(served: Served, curl: Curl, version: str) -> None:
    with curl(version, "-d", "prompt=x") as running:
        assert running.stdout is not None
        job = served.engine.next_job()
        job.say("so far")
        assert running.stdout.read(6) == b"so far"
        job.fail()
        running.communicate(timeout=SECONDS)
    assert running.returncode == {"--http1.1": 18, "--http2": 92}[version]


def test_break_right_after_the_first_text(served: Served, curl: Curl, version: str) -> None:
    with curl(version, "-d", "prompt=x") as running:
        job = served.engine.next_job()
        job.say("so far")
        job.fail()
        running.communicate(timeout=SECONDS)
    assert running.returncode == {"--http1.1": 18, "--http2": 92}[version]


@pytest.mark.parametrize("text_first", [False, True])
def test_client_that_leaves(served: Served, curl: Curl, version: str, text_first: bool) -> None:
    with curl(version, "-d", "prompt=x") as running:
        assert running.stdout is not None
        job = served.engine.next_job()
        if text_first:
            job.say("so far")
            assert running.stdout.read(6) == b"so far"
        running.kill()
        assert job.cancelled.wait(SECONDS)


def test_error_before_the_first_byte(served: Served, curl: Curl, version: str) -> None:
    served.engine.refusal = QueueFullError(0)
    with curl(version, "-i", "-d", "prompt=x") as running:
        head, _, text = running.communicate(timeout=SECONDS)[0].partition(b"\r\n\r\n")
    assert b" 503" in head.splitlines()[0]
    assert b"retry-after: 1" in head.lower()
    assert text == b"server is busy\n"


def test_nothing_is_asked_twice(served: Served, curl: Curl, version: str) -> None:
    with curl(version, "-o", "/dev/null", "-w", "%{http_code}", "-d", "prompt=x") as running:
        served.engine.next_job()
        served.run(served.close_connections)
        assert running.communicate(timeout=SECONDS)[0] == b"502"
    assert served.engine.jobs.empty()


def test_long_prompt(served: Served, curl: Curl, version: str) -> None:
    prompt = "x " * 100_000
    with curl(version, "-d", f"prompt={prompt[:100_000]}") as running:
        job = served.engine.next_job()
        assert len(job.text) == 100_000
        job.end("stop", None, "whole")
        assert running.communicate(timeout=SECONDS)[0] == b"whole"


def test_whose_request_it_is(
    served: Served, curl: Curl, version: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "llm_api.requests")
    with curl(version, "-H", "X-Forwarded-For: 203.0.113.5", "-d", "prompt=x") as running:
        served.engine.next_job().end("stop", None, "y")
        running.communicate(timeout=SECONDS)
    served.settle()
    # Behind nginx on this host, a Unix socket's clients are at 127.0.0.1 too. Where that is a
    # trusted proxy itself, what it is said to have said counts.
    client = "127.0.0.1" if isinstance(served.port, str) else "203.0.113.5"
    assert caplog.messages[-1].endswith(f"client={client}")


def test_http_1_0_has_no_way_to_break(curl: Curl) -> None:
    with curl("--http1.0", "-w", " %{http_code}", "-d", "prompt=x") as running:
        text = running.communicate(timeout=SECONDS)[0]
    assert text == b"use HTTP/1.1 or HTTP/2\n 505"
