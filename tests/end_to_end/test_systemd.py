"""The unit in contrib/, run by a stand-in for systemd: its command line, its socket, its model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_api.address import UnixAddress
from llm_api.server.listening import bind

from ..support.systemd import Manager, activate, read_unit
from .program import SECONDS

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(str(tmp_path / "notify"))
    yield manager
    manager.close()


def test_service_behind_its_socket(model_path: Path, manager: Manager, tmp_path: Path) -> None:
    mode = int(read_unit("llm-api.socket")["Socket"]["SocketMode"], 8)
    service = read_unit("llm-api.service")["Service"]
    _, *flags, _ = service["ExecStart"].split()
    path = tmp_path / "llm-api.sock"
    (handed,) = bind(UnixAddress(str(path), mode))
    command = [sys.executable, "-m", "llm_api", *flags, "-context", "256", str(model_path)]
    with (
        handed,
        subprocess.Popen(
            [*activate([handed], ["llm-api.socket"], manager.address), *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            umask=int(service["UMask"], 8),
        ) as process,
    ):
        try:
            # The first client comes before the model is loaded, and waits for nothing in vain.
            status = ask(path, "-w", "%{http_code}", "-o", os.devnull, "http://x/health")
            assert status in ("200", "503")
            while "READY" not in manager.next(SECONDS):
                pass
            assert "Paris" in ask(
                path, "-d", "prompt=The capital of France is", "-d", "tokens=5", "http://x/predict"
            )
            assert ask(path, "-d", "messages=Hello", "-d", "tokens=2", "http://x/chat")
            process.send_signal(signal.SIGHUP)
            assert "RELOADING" in manager.next(SECONDS)
            assert manager.next(SECONDS) == {"READY": "1"}
            process.send_signal(signal.SIGTERM)
            assert "STOPPING" in manager.next(SECONDS)
            assert process.wait(SECONDS) == 0
        finally:
            process.kill()
        assert path.exists(), "the socket is systemd's"


def ask(path: Path, *arguments: str) -> str:
    command = ["curl", "-sS", "--unix-socket", str(path), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=SECONDS, check=True
    ).stdout
