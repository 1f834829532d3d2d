"""Telling HTTP/2 from HTTP/1 on one port."""

from __future__ import annotations

from typing import Final

from tornado.iostream import IOStream, SSLIOStream

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What every HTTP/2 client sends first (RFC 9113, section 3.4)."""

ALPN: Final = "h2"


class RewindableStream(IOStream):
    """A stream that can take back the first bytes read from it, for the next reader."""

    _returned = b""

    def put_back(self, data: bytes) -> None:
        """Make these bytes the next ones to be read."""
        self._returned = data + self._returned

    def read_from_fd(self, buf: bytearray | memoryview) -> int | None:
        """Read what was put back, then from the socket; Tornado calls this."""
        if not self._returned:
            return super().read_from_fd(buf)
        data = self._returned[: len(buf)]
        buf[: len(data)] = data
        self._returned = self._returned[len(data) :]
        return len(data)


async def is_http2(stream: IOStream) -> bool:
    """Tell which protocol the client of a new connection speaks; nothing is lost of it.

    Over TLS the handshake settles it. Else the first bytes do, as soon as they differ from the
    preface: an HTTP/1 method may begin with its letters. Raises StreamClosedError, or SSLError
    where there is no handshake.
    """
    if isinstance(stream, SSLIOStream):
        await stream.wait_for_handshake()
        return stream.socket.selected_alpn_protocol() == ALPN
    assert isinstance(stream, RewindableStream)
    data = b""
    usual_size = stream.read_chunk_size
    while len(data) < len(PREFACE) and PREFACE.startswith(data):
        # What Tornado reads beyond what it is asked for, it keeps, and that would come first.
        stream.read_chunk_size = len(PREFACE) - len(data)
        data += await stream.read_bytes(stream.read_chunk_size, partial=True)
    stream.read_chunk_size = usual_size
    stream.put_back(data)
    return data == PREFACE
