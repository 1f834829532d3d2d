"""One reply: whole, or a stream that ends or visibly breaks."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from http.client import responses
from typing import TYPE_CHECKING

from tornado.httputil import HTTPHeaders, ResponseStartLine, format_timestamp

from llm_api.server import wire

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tornado.httputil import HTTPConnection, RequestStartLine

    from llm_api.limits import Limits

TEXT = "text/plain; charset=utf-8"
JSON = "application/json; charset=utf-8"


_REASONS = {
    400: "bad_request",
    401: "no_key",
    403: "forbidden",
    404: "not_found",
    405: "bad_method",
    408: "late",
    413: "too_large",
    415: "bad_media_type",
    429: "client_share",
    431: "headers_too_large",
    500: "failed",
    503: "busy",
}


class Refusal(Exception):
    """A request that is not served: the status, one line for the client, more headers.

    `reason` is a word for counting; there are few of them.
    """

    def __init__(
        self,
        status: int,
        text: str,
        headers: Mapping[str, str] | None = None,
        *,
        reason: str | None = None,
    ) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = dict(headers or {})
        self.reason = reason or _REASONS.get(status, str(status))


class Reply:
    """Writes the reply to one request.

    Either `send` once, or `start`, `write` as often as needed, and `finish`. `abort` is right at
    any time. After the end nothing more is written, whoever asks for it.
    """

    def __init__(
        self,
        connection: HTTPConnection,
        start_line: RequestStartLine,
        headers: HTTPHeaders,
        request_id: str,
        limits: Limits,
    ) -> None:
        self.connection = connection
        self.headers: dict[str, str] = {}
        """What every reply to this request says beside the usual."""
        self.status: int | None = None
        """The status, once it is sent."""
        self.is_open = True
        """False once the reply has ended or broken off, or its reader has gone."""
        self._version = start_line.version
        self._is_head = start_line.method == "HEAD"
        self._request_headers = headers
        self._request_id = request_id
        self._limits = limits

    @property
    def must_be_whole(self) -> bool:
        """Whether the reply can only be sent whole, by `send`, not as a stream.

        A stream on HTTP/1.0 ends with its connection. If it breaks, the connection is reset, and
        a Unix socket cannot be: its reader would take the part for the whole.
        """
        return self._version == "HTTP/1.0" and wire.is_unix(self.connection)

    def on_reader_gone(self, callback: Callable[[], None]) -> None:
        """Call back when the connection closes before the reply has ended."""

        def close() -> None:
            if self.is_open:
                self.is_open = False
                callback()

        # Tornado has this method on all its connections, though not on their base class.
        self.connection.set_close_callback(close)  # type: ignore[attr-defined]

    def send(
        self,
        status: int,
        text: str,
        content_type: str = TEXT,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Write a whole reply; `release` then gives the connection back."""
        if not self.is_open:
            return
        body = text.encode()
        head = self._head(content_type)
        if status != HTTPStatus.NO_CONTENT:
            head["Content-Length"] = str(len(body))
        for name, value in (headers or {}).items():
            head[name] = value
        flushed = self._write_head(status, head, b"" if self._is_head else body)
        if not flushed.done():
            # A client that sends requests and reads no replies.
            loop = asyncio.get_running_loop()
            timer = loop.call_later(self._limits.write_stall, self._break)
            flushed.add_done_callback(lambda _: timer.cancel())

    def send_refusal(self, refusal: Refusal) -> None:
        """Write a refusal as one line of text, though parsers may have spread it over several."""
        line = " ".join(refusal.text.split())
        self.send(refusal.status, f"{line}\n" if line else "", headers=refusal.headers)

    def announce_close(self) -> None:
        """Tell the client that the connection ends with this reply, as it does on HTTP/1."""
        if self._version.startswith("HTTP/1"):
            self.headers["Connection"] = "close"

    def release(self) -> None:
        """End what `send` has written; the connection is free for its next request.

        If the body of this request has not been read to its end, the connection closes instead.
        """
        if self.is_open:
            self.is_open = False
            self.connection.finish()

    def start(self, chunk: bytes) -> asyncio.Future[None]:
        """Write the head of a stream and its first bytes; see `write`."""
        if self._version == "HTTP/1.0":
            # Such a stream ends with its connection, whatever the client wishes. Tornado would
            # repeat the wish in the reply.
            self._request_headers.pop("Connection", None)
        wire.send_small_pieces_at_once(self.connection)
        return self._write_head(200, self._head(TEXT), chunk)

    def write(self, chunk: bytes) -> asyncio.Future[None]:
        """Write more of a stream. The future is done when the kernel has all of it.

        Mostly that is at once. Whoever writes on before it is so takes memory.
        """
        return self.connection.write(chunk)

    def finish(self) -> None:
        """End a stream whose bytes have all been flushed."""
        if self.is_open:
            self.is_open = False
            self.connection.finish()
            if self._version == "HTTP/1.0":
                wire.close(self.connection)

    def abort(self) -> None:
        """Break the reply off, whatever has been written."""
        if self.is_open:
            self.is_open = False
            self._break()

    def _break(self) -> None:
        wire.abort(self.connection, self._version)

    def _head(self, content_type: str) -> HTTPHeaders:
        return HTTPHeaders(
            {
                "Content-Type": content_type,
                "Date": format_timestamp(time.time()),
                "X-Request-Id": self._request_id,
                "Cache-Control": "no-store",
                "X-Accel-Buffering": "no",
                "X-Content-Type-Options": "nosniff",
                **self.headers,
            }
        )

    def _write_head(self, status: int, head: HTTPHeaders, chunk: bytes) -> asyncio.Future[None]:
        self.status = status
        line = ResponseStartLine("HTTP/1.1", status, responses[status])
        return self.connection.write_headers(line, head, chunk)
