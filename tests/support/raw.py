"""A client that hides nothing: bytes out, bytes in."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from types import TracebackType
from typing import NoReturn, Self
from urllib.parse import urlencode

from .scripted import SECONDS

Place = int | str
"""A port of 127.0.0.1, or the path of a Unix socket."""


def connect(place: Place, receive_buffer: int | None = None) -> socket.socket:
    """Connect, or close what could not be."""
    is_unix = isinstance(place, str)
    client = socket.socket(socket.AF_UNIX if is_unix else socket.AF_INET)
    if receive_buffer is not None:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.settimeout(SECONDS)
    try:
        client.connect(place if is_unix else ("127.0.0.1", place))
    except OSError:
        client.close()
        raise
    return client


@dataclass
class Response:
    status: int
    headers: dict[str, str]
    body: bytes
    is_whole: bool
    """The body ended as it said it would, so that a client may trust it."""

    @property
    def text(self) -> str:
        return self.body.decode()


class Raw:
    """One connection to the server."""

    def __init__(self, place: Place, receive_buffer: int | None = None) -> None:
        self.socket = connect(place, receive_buffer)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_forever(self, data: bytes) -> NoReturn:
        """Send the same again and again, until the server lets it be known that it is enough."""
        while True:
            self.send(data)

    def send_slowly(self, data: bytes, pause: float) -> NoReturn:
        """Send the same again and again, with pauses."""
        while True:
            self.send(data)
            time.sleep(pause)

    def request(
        self,
        target: str,
        fields: dict[str, object] | list[tuple[str, object]] | None = None,
        *,
        method: str | None = None,
        version: str = "HTTP/1.1",
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> None:
        """Send a request; fields, or else a body, make it a POST."""
        lines = {"Host": "test"} if version == "HTTP/1.1" else {}
        if fields is not None:
            body = urlencode(fields, doseq=True).encode()
            lines["Content-Type"] = "application/x-www-form-urlencoded"
        if body is not None:
            lines["Content-Length"] = str(len(body))
        lines |= headers or {}
        method = method or ("GET" if body is None else "POST")
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self.send(f"{method} {target} {version}\r\n{head}\r\n".encode() + (body or b""))

    def read(self) -> bytes:
        """Read what has come; empty at the end of the connection."""
        return self.socket.recv(65536)

    def read_until(self, mark: bytes) -> bytes:
        """Read up to and including a mark."""
        while mark not in self._buffer:
            data = self.read()
            if not data:
                raise EOFError(self._buffer)
            self._buffer += data
        found, _, self._buffer = self._buffer.partition(mark)
        return found + mark

    def read_all(self) -> bytes:
        """Read to the end of the connection; a reset is a ConnectionResetError."""
        parts = [self._buffer]
        self._buffer = b""
        while data := self.read():
            parts.append(data)
        return b"".join(parts)

    def response(self) -> Response:
        """Read one reply."""
        status_line, *lines = self.read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines if line)
        status = int(status_line.split(" ")[1])
        body, is_whole = self._body(headers)
        return Response(status, headers, body, is_whole)

    def _body(self, headers: dict[str, str]) -> tuple[bytes, bool]:
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            try:
                while size := int(self.read_until(b"\r\n"), 16):
                    body += self._exactly(size + 2)[:-2]
                return body, self._exactly(2) == b"\r\n"
            except EOFError:
                return body, False
        if "content-length" in headers:
            return self._exactly(int(headers["content-length"])), True
        return self.read_all(), True

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = self.read()
            if not data:
                raise EOFError(self._buffer)
            self._buffer += data
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data
