"""Serving on a Unix socket: its file, the protocols over it, and breaks that look like breaks."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_api.address import UnixAddress
from llm_api.limits import Limits
from llm_api.server import ServeError
from llm_api.server.listening import bind
from llm_api.tls import Certificate

from ..support.http2 import Http2Client, client_context, make_certificate
from ..support.raw import Raw
from ..support.scripted import SECONDS, ScriptedEngine, echo
from ..support.serving import Served, make_settings
from .conftest import Serve
from .test_breaks import begin
from .test_lifecycle import process


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


@pytest.fixture
def served(serve: Serve, path: Path) -> Served:
    return serve(settings=make_settings(address=UnixAddress(str(path), 0o600)))


@pytest.fixture
def client(served: Served) -> Iterator[Raw]:
    with Raw(served.port) as client:
        yield client


def listen(path: Path, mode: int = 0o600) -> socket.socket:
    (listening,) = bind(UnixAddress(str(path), mode))
    return listening


def curl(path: Path, *options: str) -> subprocess.Popen[bytes]:
    command = ["curl", "-sS", "-N", "--unix-socket", str(path), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


class TestFile:
    @pytest.mark.parametrize("mode", [0o600, 0o660, 0o777, 0o700])
    def test_mode(self, path: Path, mode: int) -> None:
        mask = os.umask(0o077)
        try:
            with listen(path, mode):
                assert stat.S_IMODE(path.stat().st_mode) == mode
            assert os.umask(0o077) == 0o077, "the process keeps its own mask"
        finally:
            os.umask(mask)

    def test_is_removed(self, path: Path) -> None:
        listen(path).close()
        assert not path.exists()

    def test_stale_one_is_replaced(self, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
            stale.listen()
        with listen(path) as listening, Raw(str(path)):
            assert listening.accept()[0].close() is None

    @pytest.mark.parametrize("backlog_is_full", [False, True])
    def test_one_with_a_listener_stays(self, path: Path, backlog_is_full: bool) -> None:
        with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as client:
            other.bind(str(path))
            other.listen(0)
            if backlog_is_full:
                client.connect(str(path))
            with pytest.raises(ServeError, match=rf"unix:{path}: another process listens there"):
                listen(path)
            assert path.exists()

    @pytest.mark.parametrize("make", [Path.touch, Path.mkdir, lambda path: path.symlink_to("x")])
    def test_anything_else_stays(self, path: Path, make: object) -> None:
        make(path)  # type: ignore[operator]
        before = path.lstat()
        with pytest.raises(ServeError, match="not a socket"):
            listen(path)
        assert path.lstat() == before

    def test_folder_that_is_not_there(self, path: Path) -> None:
        with pytest.raises(ServeError, match="No such file"):
            listen(path / "s")

    def test_another_in_its_place_is_not_removed(self, path: Path) -> None:
        first = listen(path)
        path.unlink()
        with listen(path):
            first.close()
            assert path.exists()
        assert not path.exists()


class TestProcess:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_leaves_no_file(self, path: Path, number: int) -> None:
        with process(address=f"unix:{path}") as server, Raw(server.port) as running:
            running.request("/predict", {"prompt": "x"})
            running.read_until(b"begun ")
            server.signal(number)
            server.read_log("shutting down")
            server.tell("and ended")
            assert running.read_until(b"0\r\n\r\n") == b"\r\n9\r\nand ended\r\n0\r\n\r\n"
            assert server.exit_status() == 0
        assert not path.exists()

    def test_next_one_after_a_kill(self, path: Path) -> None:
        with process(address=f"unix:{path}") as server:
            server.signal(signal.SIGKILL)
            server.exit_status()
        assert path.exists()
        with process(address=f"unix:{path}") as server, Raw(server.port) as client:
            client.request("/health")
            assert client.response().status == 200


class TestReplies:
    def test_http_1_1_streams(self, served: Served, client: Raw) -> None:
        job = begin(served, client)
        job.end("stop", None, " and further")
        assert client.read_until(b"0\r\n\r\n").endswith(b" and further\r\n0\r\n\r\n")
        client.request("/health")
        assert client.response().status == 200

    def test_http_2(self, serve: Serve, path: Path) -> None:
        address = UnixAddress(str(path), 0o600)
        served = serve(ScriptedEngine(echo), make_settings(address=address))
        with Http2Client(served.port) as client:
            assert client.get("/predict", {"prompt": "by its preface"}).text == "by its preface"

    def test_tls(self, serve: Serve, path: Path, tmp_path: Path) -> None:
        files = make_certificate(tmp_path)
        settings = make_settings(
            address=UnixAddress(str(path), 0o600), certificate=Certificate(*map(str, files))
        )
        served = serve(ScriptedEngine(echo), settings)
        with Http2Client(served.port, context=client_context(files[0], "h2")) as client:
            assert client.get("/predict", {"prompt": "over TLS"}).text == "over TLS"

    @pytest.mark.parametrize(("allowed", "status"), [((), 200), (("llm.example",), 403)])
    def test_host_names_count_where_some_are_given(
        self, serve: Serve, path: Path, allowed: tuple[str, ...], status: int
    ) -> None:
        address = UnixAddress(str(path), 0o600)
        served = serve(settings=make_settings(address=address, allowed_hosts=frozenset(allowed)))
        with Raw(served.port) as client:
            client.request("/health", headers={"Host": "other.example"})
            assert client.response().status == status
            client.request("/health", headers={"Host": "llm.example"})
            assert client.response().status == 200

    @pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
    def test_client_that_leaves(self, served: Served, client: Raw, version: str) -> None:
        client.request("/predict?prompt=x", version=version)
        job = served.engine.next_job()
        job.say("so far")
        client.close()
        start = time.monotonic()
        assert job.cancelled.wait(SECONDS)
        assert time.monotonic() - start < 0.25

    def test_slow_reader_loses_its_stream(self, serve: Serve, path: Path) -> None:
        settings = make_settings(address=UnixAddress(str(path), 0o600))
        served = serve(settings=settings, limits=Limits(unsent=1 << 10))
        with Raw(served.port) as client:
            client.request("/predict?prompt=x")
            job = served.engine.next_job()
            while not job.cancelled.is_set():
                job.say("x" * (64 << 10))
                served.settle()


class TestBreaks:
    """A broken reply never looks like a whole one."""

    @pytest.mark.parametrize(
        ("options", "exit_code"), [(["--http1.1"], 18), (["--http2-prior-knowledge"], 92)]
    )
    def test_exit_codes_of_curl(
        self, served: Served, path: Path, options: list[str], exit_code: int
    ) -> None:
        with curl(path, *options, "http://x/predict?prompt=x") as running:
            assert running.stdout is not None
            job = served.engine.next_job()
            job.say("so far")
            assert running.stdout.read(6) == b"so far"
            job.fail()
            running.communicate(timeout=SECONDS)
        assert running.returncode == exit_code


class TestHttp10:
    """No reset tells a break from an end here, so a reply is sent whole, or an error is."""

    @pytest.fixture
    def job(self, served: Served, client: Raw):
        client.request("/predict?prompt=x", version="HTTP/1.0")
        return served.engine.next_job()

    def test_whole_reply(self, client: Raw, job) -> None:
        job.say("all ")
        job.end("stop", None, "there ä")
        reply = client.response()
        assert (reply.status, reply.text) == (200, "all there ä")
        assert reply.headers["content-length"] == "12"
        assert client.read_all() == b""

    def test_nothing_is_sent_before_the_end(self, served: Served, client: Raw, job) -> None:
        job.say("so far")
        served.settle()
        served.settle()
        client.socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.read()

    def test_broken_reply(self, client: Raw, job) -> None:
        job.say("so far")
        job.fail()
        reply = client.response()
        assert (reply.status, reply.text) == (500, "inference failed\n")

    def test_server_that_ends(self, served: Served, client: Raw, job) -> None:
        job.say("so far")
        served.run(served.server.close)
        assert client.read_all() == b"", "a client takes that for no reply at all"

    def test_connection_that_is_kept(self, served: Served, client: Raw) -> None:
        for _ in range(2):
            headers = {"Connection": "keep-alive"}
            client.request("/predict?prompt=x", version="HTTP/1.0", headers=headers)
            served.engine.next_job().end("stop", None, "all")
            assert client.response().text == "all"

    def test_reply_over_the_limit(self, serve: Serve, path: Path) -> None:
        settings = make_settings(address=UnixAddress(str(path), 0o600))
        served = serve(settings=settings, limits=Limits(unsent=1000))
        with Raw(served.port) as client:
            client.request("/predict?prompt=x", version="HTTP/1.0")
            job = served.engine.next_job()
            job.say("x" * 1001)
            assert job.cancelled.wait(SECONDS)
            reply = client.response()
        assert reply.status == 500
        assert "ask with HTTP/1.1" in reply.text

    @pytest.mark.parametrize(("does_fail", "exit_code"), [(False, 0), (True, 22)])
    def test_curl(self, served: Served, path: Path, does_fail: bool, exit_code: int) -> None:
        with curl(path, "-f", "--http1.0", "http://x/predict?prompt=x") as running:
            job = served.engine.next_job()
            job.say("so far")
            (job.fail if does_fail else job.end)()
            text, _ = running.communicate(timeout=SECONDS)
        assert (running.returncode, text) == (exit_code, b"" if does_fail else b"so far")
