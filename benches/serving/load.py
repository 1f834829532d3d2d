"""The load client: many requests at once from one thread, and when each piece came.

It runs as a process of its own (``python -m serving.load``), so that it takes no time from either
server's threads but its core's. A plan comes on standard input, what was seen goes to standard
output, both as JSON. While the replies come, bytes are only collected; they are read afterwards,
by `serving.replies`.
"""

import json
import resource
import selectors
import socket
import sys
import time
from dataclasses import asdict, dataclass, field

_READ_BYTES = 1 << 18


@dataclass
class Request:
    """What to send, and when."""

    port: int
    data: str
    """The bytes of an HTTP request, as Latin-1."""
    after: float | None = None
    """Seconds to wait once all requests without such a time have begun to be answered."""


@dataclass
class Plan:
    """Requests that start together, and the seconds after which what still runs is cut off."""

    requests: list[Request]
    deadline: float


@dataclass
class Seen:
    """What came back on one connection. Times are seconds since the plan began."""

    sent: float = 0.0
    reads: list[tuple[float, str]] = field(default_factory=list)
    """When bytes came, and the bytes, as Latin-1."""
    error: str | None = None
    """Why the connection did not come to its end."""


@dataclass
class Outcome:
    """What came back on all connections, and what the client itself took."""

    streams: list[Seen]
    wall_seconds: float
    cpu_seconds: float


class _Client:
    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._seen = [Seen() for _ in plan.requests]
        self._reads: list[list[tuple[float, bytes]]] = [[] for _ in plan.requests]
        self._selector = selectors.DefaultSelector()
        self._begin = time.perf_counter()

    def run(self) -> Outcome:
        now = [index for index, request in enumerate(self._plan.requests) if request.after is None]
        later = [index for index in range(len(self._seen)) if index not in now]
        sockets = {index: self._connect(index) for index in (*now, *later)}
        self._begin = time.perf_counter()
        before = resource.getrusage(resource.RUSAGE_SELF)
        for index in now:
            self._send(sockets[index], index)
        silent = set(now)
        due: list[tuple[float, int]] | None = None
        running = len(self._seen)
        while running:
            timeout = self._plan.deadline - self._time()
            if timeout <= 0:
                break
            if due:
                timeout = min(timeout, max(0.0, due[0][0] - self._time()))
            for key, _ in self._selector.select(timeout):
                running -= self._read(sockets[key.data], key.data)
                silent.discard(key.data)
            if due is None and not silent:
                due = sorted((self._time() + self._after(index), index) for index in later)
            while due and due[0][0] <= self._time():
                index = due.pop(0)[1]
                self._send(sockets[index], index)
        after = resource.getrusage(resource.RUSAGE_SELF)
        wall = self._time()
        for key in tuple(self._selector.get_map().values()):
            self._seen[key.data].error = "deadline"
        for connection in sockets.values():
            connection.close()
        for seen, reads in zip(self._seen, self._reads, strict=True):
            seen.reads = [(when, data.decode("latin-1")) for when, data in reads]
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Outcome(self._seen, wall, cpu)

    def _time(self) -> float:
        return time.perf_counter() - self._begin

    def _after(self, index: int) -> float:
        return self._plan.requests[index].after or 0.0

    def _connect(self, index: int) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self._plan.requests[index].port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def _send(self, connection: socket.socket, index: int) -> None:
        self._seen[index].sent = self._time()
        connection.sendall(self._plan.requests[index].data.encode("latin-1"))
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ, index)

    def _read(self, connection: socket.socket, index: int) -> bool:
        """Take what has come; True at the end."""
        try:
            data = connection.recv(_READ_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            self._seen[index].error = str(error)
            data = b""
        if data:
            self._reads[index].append((self._time(), data))
            return False
        self._selector.unregister(connection)
        return True


def carry_out(plan: Plan) -> Outcome:
    """Send the requests of a plan and collect what comes back."""
    return _Client(plan).run()


def main() -> int:
    """Carry out the plan that standard input has."""
    told = json.load(sys.stdin)
    plan = Plan([Request(**request) for request in told["requests"]], told["deadline"])
    json.dump(asdict(carry_out(plan)), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
