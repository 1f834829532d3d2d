"""Server processes: started, ready, asked, measured, stopped."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from serving.dialects import Ask, Dialect, LlamaServer, LlmApi, Stream
from serving.load import Outcome, Plan, Request, Seen, carry_out

_START_SECONDS = 120
_STOP_SECONDS = 20
_POLL_SECONDS = 0.002


@dataclass(frozen=True)
class Sizes:
    """What both kinds of server are given alike."""

    model: Path
    context: int
    """Tokens that one request may use, prompt and reply together."""
    parallel: int
    threads: int = 2


@dataclass(frozen=True)
class Kind:
    """A kind of server: its name in results, how to start it, how to speak to it."""

    name: str
    dialect: Dialect
    program: Path | None = None
    """The peer's program; None for ours."""
    flags: tuple[str, ...] = ()

    def command(self, sizes: Sizes, port: int) -> list[str]:
        """Return the command that serves a model on a port."""
        if self.program is None:
            return [
                *(sys.executable, "-m", "llm_api", "-addr", f"127.0.0.1:{port}"),
                *("-context", str(sizes.context), "-parallel", str(sizes.parallel)),
                *("-threads", str(sizes.threads), *self.flags, str(sizes.model)),
            ]
        # It divides its context by its slots.
        return [
            *(str(self.program), "--host", "127.0.0.1", "--port", str(port)),
            *("-c", str(sizes.context * sizes.parallel), "-np", str(sizes.parallel)),
            *("-t", str(sizes.threads), *self.flags, "-m", str(sizes.model)),
        ]


def ours(kernels: str, *flags: str) -> Kind:
    """Return ours with kernels "off" or "auto"; its name says which."""
    name = {"off": "ours", "auto": "ours, kernels"}[kernels]
    return Kind(name, LlmApi(), None, ("-kernels", kernels, *flags))


def llama_server(program: Path) -> Kind:
    """Return the peer."""
    return Kind("llama-server", LlamaServer(), program)


class LoadError(Exception):
    """A load that did not go as planned."""


@dataclass
class Load:
    """What a load was answered with, and the load client's share of a core."""

    streams: list[Stream]
    client_share: float


class Server:
    """A running server."""

    def __init__(self, kind: Kind, sizes: Sizes, log: Path) -> None:
        self.kind = kind
        self.port = _free_port()
        self._log = log
        self._began = time.perf_counter()
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                kind.command(sizes, self.port), stdout=file, stderr=file
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def ask(self, *asks: Ask, deadline: float = 120.0, may_cut: bool = False) -> Load:
        """Send requests together and read the replies.

        With `may_cut`, what still runs at the deadline is cut off; else that is a LoadError.
        """
        return self.ask_later([(ask, None) for ask in asks], deadline, may_cut=may_cut)

    def ask_later(
        self,
        asks: Sequence[tuple[Ask, float | None]],
        deadline: float = 120.0,
        *,
        may_cut: bool = False,
    ) -> Load:
        """Do the same with requests that are sent later; see `load.Request.after`."""
        return ask_all([(self, ask, after) for ask, after in asks], deadline, may_cut=may_cut)

    def answer_seconds(self) -> float:
        """Ask for one token, from this process; return the seconds from the start to its end.

        Both kinds have then decoded once. The peer does that by itself before it says that it is
        ready; ours does not.
        """
        ask = Ask("Once upon a time there", 1, greedy=True)
        plan = Plan([Request(self.port, self.kind.dialect.request(ask))], _START_SECONDS)
        outcome = carry_out(plan)
        seconds = time.perf_counter() - self._began
        _read([(self, ask, None)], outcome, may_cut=False)
        return seconds

    def memory(self) -> int:
        """Return the bytes that are resident: its own and those of mapped files."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) << 10
        raise LoadError("the server has no memory")

    def cpu_seconds(self) -> float:
        """Return the time that its threads have computed."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End the process."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_until_ready(self) -> None:
        give_up = time.perf_counter() + _START_SECONDS
        while time.perf_counter() < give_up:
            if self._process.poll() is not None:
                break
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    return
            connection.close()
            time.sleep(_POLL_SECONDS)
        tail = self._log.read_text(errors="replace")[-2000:]
        raise LoadError(f"{self.kind.name} did not start:\n{tail}")


def ask_all(
    asks: Sequence[tuple[Server, Ask, float | None]], deadline: float, *, may_cut: bool = False
) -> Load:
    """Send requests to several servers together and read the replies."""
    requests = [
        Request(server.port, server.kind.dialect.request(ask), after) for server, ask, after in asks
    ]
    done = subprocess.run(
        [sys.executable, "-m", "serving.load"],
        input=json.dumps(asdict(Plan(requests, deadline))),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=deadline + 60,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    told = json.loads(done.stdout)
    outcome = Outcome(**told | {"streams": [Seen(**seen) for seen in told["streams"]]})
    return _read(asks, outcome, may_cut=may_cut)


def _read(
    asks: Sequence[tuple[Server, Ask, float | None]], outcome: Outcome, *, may_cut: bool
) -> Load:
    streams = []
    for (server, ask, _), seen in zip(asks, outcome.streams, strict=True):
        stream = server.kind.dialect.stream(server.port, seen, cut=may_cut)
        if stream.is_whole and stream.tokens != ask.tokens:
            raise LoadError(f"{server.kind.name} made {stream.tokens} of {ask.tokens} tokens")
        streams.append(stream)
    return Load(streams, outcome.cpu_seconds / outcome.wall_seconds)


@contextlib.contextmanager
def running(kinds: list[Kind], sizes: Sizes, logs: Path) -> Iterator[list[Server]]:
    """Start a server of each kind; all of them wait while one is asked."""
    with contextlib.ExitStack() as stack:
        servers = []
        for index, kind in enumerate(kinds):
            servers.append(Server(kind, sizes, logs / f"{index}-{kind.name}.log"))
            stack.callback(servers[-1].stop)
        yield servers


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
