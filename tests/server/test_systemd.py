"""Under systemd, or a stand-in for it: sockets that are handed over, and what is told."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_api.address import Address, UnixAddress
from llm_api.server import ServeError
from llm_api.server.listening import bind
from llm_api.server.systemd import ServiceManager, take_sockets

from ..support.raw import Raw
from ..support.scripted import SECONDS
from ..support.systemd import CONTRIB, Manager, activate, read_unit
from .test_lifecycle import process


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    name = f"@llm-api-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "n")
    manager = Manager(name)
    yield manager
    manager.close()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    (made,) = bind(Address("127.0.0.1", 0))
    yield made
    made.close()


def port(listening: socket.socket) -> int:
    number: int = listening.getsockname()[1]
    return number


class TestSockets:
    def test_port(self, listening: socket.socket) -> None:
        with process(wrapper=activate([listening])) as server:
            assert server.port == port(listening)
            with Raw(port(listening)) as client:
                client.request("/health")
                assert client.response().status == 200

    def test_unix(self, tmp_path: Path) -> None:
        path = tmp_path / "s"
        (handed,) = bind(UnixAddress(str(path), 0o600))
        with handed:
            with process(wrapper=activate([handed]), address=f"unix:{path}") as server:
                assert server.port == str(path)
                with Raw(str(path)) as client:
                    client.request("/health")
                    assert client.response().status == 200
                server.signal(signal.SIGTERM)
                assert server.exit_status() == 0
            assert path.exists(), "it is systemd's"

    def test_several(self, listening: socket.socket, tmp_path: Path) -> None:
        (unix,) = bind(UnixAddress(str(tmp_path / "s"), 0o600))
        with unix, process(wrapper=activate([listening, unix], ["web", "local"])):
            for place in (port(listening), str(tmp_path / "s")):
                with Raw(place) as client:
                    client.request("/predict?prompt=x")
                    assert client.read_until(b"begun ")

    def test_clients_wait_for_the_next_one(self, listening: socket.socket) -> None:
        with process(wrapper=activate([listening])) as server:
            server.signal(signal.SIGTERM)
            assert server.exit_status() == 0
        with Raw(port(listening)) as client:
            client.request("/health")
            with process(wrapper=activate([listening])):
                assert client.response().status in (200, 503), "loaded, or not yet"

    def test_of_another_process_are_left_alone(self) -> None:
        environment = {"LISTEN_PID": str(os.getpid() + 1), "LISTEN_FDS": "1"}
        assert take_sockets(environment) == []
        assert len(environment) == 2

    def test_none(self) -> None:
        environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"}
        assert take_sockets(environment) == []
        assert environment == {}
        assert take_sockets({}) == []

    @pytest.mark.parametrize("count", ["", "-1", "x", "٣", "1" * 9])
    def test_bad_counts(self, count: str) -> None:
        with pytest.raises(ServeError, match="LISTEN_FDS"):
            take_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count})

    @pytest.mark.parametrize("kind", ["datagram", "connected"])
    def test_of_another_kind_are_refused(self, kind: str) -> None:
        one, other = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM
        )
        wrapper = activate([one], ["web"])
        with one, other, pytest.raises(AssertionError) as caught, process(wrapper=wrapper):
            pass
        told = str(caught.value)
        assert r"file descriptor 3 (web) from systemd is not a listening stream socket" in told


class TestNotify:
    def test_from_load_to_end(self, manager: Manager, listening: socket.socket) -> None:
        wrapper = activate([listening], notify=manager.address)
        with process(wrapper=wrapper, load="held") as server:
            assert manager.next() == {"STATUS": "loading the model"}
            server.signal(signal.SIGHUP)  # is not told: READY after it would be a lie
            with pytest.raises(TimeoutError):
                manager.next(0.1)
            server.tell("done")
            assert manager.next()["READY"] == "1"
            before = time.monotonic_ns() // 1000
            server.signal(signal.SIGHUP)
            reloading = manager.next()
            assert reloading.pop("RELOADING") == "1"
            assert before <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
            assert manager.next() == {"READY": "1"}
            with Raw(port(listening)) as running:
                running.request("/predict", {"prompt": "x"})
                running.read_until(b"begun ")
                server.signal(signal.SIGTERM)
                assert manager.next()["STOPPING"] == "1", "while the last requests run"
                server.tell("and ended")
                assert running.read_until(b"0\r\n\r\n").endswith(b"and ended\r\n0\r\n\r\n")
            assert server.exit_status() == 0

    def test_nobody_listens(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        manager = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "none")})
        manager.ready()
        assert "systemd cannot be told READY=1" in caplog.text
        ServiceManager({}).ready()
        assert len(caplog.records) == 1


class TestUnits:
    """The files in contrib/."""

    def test_the_command_line_is_one_of_ours(self) -> None:
        from llm_api import cli, flags

        program, *arguments = read_unit("llm-api.service")["Service"]["ExecStart"].split()
        assert program.endswith("/llm-api")
        parsed = flags.parse(cli._FLAGS, arguments)
        assert len(parsed.arguments) == 1

    def test_the_settings_that_the_program_relies_on(self) -> None:
        service = read_unit("llm-api.service")["Service"]
        assert service["Type"] == "notify"
        assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
        assert read_unit("llm-api.socket")["Socket"].get("Accept", "no") == "no"

    @pytest.fixture
    def units(self, tmp_path: Path) -> list[str]:
        if shutil.which("systemd-analyze") is None:
            pytest.skip("systemd-analyze is not on this machine")
        for name in ("llm-api.service", "llm-api.socket"):
            text = (CONTRIB / name).read_text()
            text = re.sub(r"ExecStart=\S+", f"ExecStart={sys.executable}", text)
            (tmp_path / name).write_text(text)
        return [str(tmp_path / "llm-api.service"), str(tmp_path / "llm-api.socket")]

    def test_systemd_understands_them(self, units: list[str]) -> None:
        done = subprocess.run(
            ["systemd-analyze", "verify", *units],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        # It looks at other units of this machine too, which are not ours to mend.
        assert [line for line in done.stderr.splitlines() if "llm-api" in line] == []

    def test_exposure(self, units: list[str]) -> None:
        """systemd's own measure, from 0 to 10, of what a service could do to its host."""
        done = subprocess.run(
            ["systemd-analyze", "security", "--offline=yes", "--threshold=20", units[0]],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if "unrecognized option" in done.stderr:
            pytest.skip("this systemd-analyze is older than the units")
        assert done.returncode == 0, done.stdout + done.stderr
