"""One request and its reply, from the first header to the call of its endpoint."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)

from llm_api.server import wire
from llm_api.server.ledger import Record
from llm_api.server.reply import Refusal, Reply
from llm_api.server.target import read_target

if TYPE_CHECKING:
    from llm_api.server.app import App

_log: Final = logging.getLogger("llm_api.server")

_METHODS: Final = ("GET", "POST")
_VERSIONS: Final = ("HTTP/1.0", "HTTP/1.1", "HTTP/2")
_FORM: Final = "application/x-www-form-urlencoded"
_CHARSET: Final = re.compile(r'\bcharset\s*=\s*"?([^\s;"]+)', re.IGNORECASE)
_LENGTH_DIGITS: Final = 15
_TOO_MANY_BODIES: Final = Refusal(
    503,
    "too many bodies are unfinished on this connection: send them one after the other",
    {"Retry-After": "1"},
)


@dataclass(frozen=True, slots=True)
class Request:
    """What an endpoint gets: the path, the undecoded form, and where to note what becomes of it."""

    path: str
    query: bytes
    body: bytes
    record: Record


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What serves a path.

    `serve` sends its reply or sees to it that it is sent later; it raises `Refusal` instead if
    there is to be none. With `generates`, requests get a post-mortem, and `serve` closes the
    record of one that it does not refuse.
    """

    name: str
    serve: Callable[[Request, Reply], None]
    generates: bool = False
    is_public: bool = False
    """No key is asked for."""


class Exchange(HTTPMessageDelegate):
    """Reads one request within the limits.

    This is one level below tornado.web, whose handlers read a whole body before they look at
    its length or type, and end a reply that failed half-way as if it were whole.

    A request is refused as soon as it can be. What is still to come of its body is then read
    and dropped, up to a limit: a client that is sending does not look for a reply, and one that
    is cut off while sending may never see it.
    """

    def __init__(self, app: App, connection: HTTPConnection) -> None:
        self._app = app
        self._connection = connection
        self._record = Record(on_close=app.metrics.note)
        self._body = bytearray()
        self._is_being_read = False
        self._discarded = 0
        self.is_refused = False
        """A refusal is the reply, or its end."""
        self._body_timer: asyncio.TimerHandle | None = None
        self._reply: Reply
        self._endpoint: Endpoint | None = None
        self._request: HTTPServerRequest
        self._query: str

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> None:
        """Refuse the request, or get ready for its body."""
        line = cast("RequestStartLine", start_line)
        self._record.client = self._app.trusted_proxies.client(
            wire.peer(self._connection), headers.get("X-Forwarded-For", "")
        )
        self._reply = Reply(self._connection, line, headers, self._record.id, self._app.limits)
        unreadable: Refusal | None = None
        try:
            length = _body_length(line.version, headers)
        except Refusal as refusal:
            length, unreadable = None, refusal
        # A client that expects "100 Continue" sends no body if it gets anything else.
        self._is_being_read = unreadable is None and (length == 0 or "Expect" not in headers)
        if length != 0:
            self._wait_for_body()
        try:
            self._check_head(line, headers)
            if unreadable is not None:
                raise unreadable
            if length != 0:
                self._check_body(headers, length or 0)
        except Refusal as refusal:
            if not self._is_being_read:
                self._reply.announce_close()
            self._refuse(refusal)

    def data_received(self, chunk: bytes) -> None:
        """Collect the body, or drop it."""
        if self.is_refused:
            self._discarded += len(chunk)
            if self._discarded > self._app.limits.discarded_body:
                self._reply.release()
            return
        if not wire.has_room(self._connection, len(chunk)):
            self.give_up(_TOO_MANY_BODIES)
            return
        self._body += chunk
        if len(self._body) > self._app.limits.body:
            self._body.clear()
            self._refuse(self._too_large())

    def finish(self) -> None:
        """Call the endpoint: the request has been read to its end."""
        self._is_being_read = False
        self._stop_waiting()
        if self.is_refused:
            self._reply.release()
            return
        if wire.is_closed(self._connection):
            # Tornado goes on with the requests in its buffer, and would never tell.
            self._close_record("cancelled")
            return
        assert self._endpoint is not None
        query = self._query.encode("latin-1")
        request = Request(self._request.path, query, bytes(self._body), self._record)
        self._body.clear()
        try:
            self._endpoint.serve(request, self._reply)
        except Refusal as refusal:
            self._refuse(refusal)
        except Exception:
            _log.exception("request %s failed", self._record.id)
            self._refuse(Refusal(500, "internal error"))
        else:
            if not self._endpoint.generates:
                self._record.status = self._reply.status
                self._record.close()

    def on_connection_close(self) -> None:
        """Note that the client left before the end of its request."""
        self._stop_waiting()
        if not self.is_refused:
            self._close_record("cancelled")

    def give_up(self, refusal: Refusal) -> None:
        """Refuse a request whose body is not going to be read to its end; the connection ends.

        One that has been refused already just ends.
        """
        self._stop_waiting()
        self._body.clear()
        self._is_being_read = False
        if self.is_refused:
            self._reply.release()
        else:
            self._reply.announce_close()
            self._refuse(refusal)

    def _wait_for_body(self) -> None:
        seconds = self._app.limits.body_timeout
        late = Refusal(408, f"the body did not come in time: send it within {seconds:g} s")
        loop = asyncio.get_running_loop()
        self._body_timer = loop.call_later(seconds, self.give_up, late)

    def _stop_waiting(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None

    def _check_head(self, line: RequestStartLine, headers: HTTPHeaders) -> None:
        limit = self._app.limits.headers
        size = len(line.path) + sum(len(name) + len(value) for name, value in headers.get_all())
        if size > limit:
            raise Refusal(431, f"the headers are too large: {size} bytes, at most {limit} are read")
        if line.version not in _VERSIONS:
            # Their replies would end with the connection, and could not be broken off visibly.
            raise Refusal(505, f"{line.version} is not served: use HTTP/1.1", reason="bad_request")
        try:
            target = read_target(line.path, line.version)
            # Without the query, which Tornado would take apart, with a limit of its own.
            start_line = line._replace(path=target.path)
            self._query = target.query
            self._request = HTTPServerRequest(
                connection=self._connection, start_line=start_line, headers=headers
            )
            if target.authority is not None:
                self._request.host = target.authority  # whatever the Host header says
        except HTTPInputError as error:
            raise Refusal(400, f"not a valid request: {error}") from error
        self._reply.headers.update(self._app.gate.check_page(self._request))
        self._endpoint = endpoint = self._app.route(self._request.path)
        self._record.endpoint = endpoint.name
        if not endpoint.is_public:
            self._app.gate.check_key(headers)
        if endpoint.generates:
            self._app.ledger.add(self._record)
            self._app.health.check()
        if line.method not in _METHODS:
            raise Refusal(
                405, "only GET and POST methods supported", {"Allow": ", ".join(_METHODS)}
            )

    def _check_body(self, headers: HTTPHeaders, length: int) -> None:
        media_type, _, parameters = headers.get("Content-Type", "").partition(";")
        charset = _CHARSET.search(parameters)
        if media_type.strip().lower() != _FORM:
            raise Refusal(415, f"send the form as {_FORM}, not as {_shown(media_type)}")
        if charset and charset[1].lower() not in ("utf-8", "utf8"):
            raise Refusal(415, f"send the form in UTF-8, not in {_shown(charset[1])}")
        if headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Refusal(415, "send the form without a Content-Encoding")
        if length > self._app.limits.body:
            raise self._too_large()

    def _too_large(self) -> Refusal:
        return Refusal(413, f"the body is too large: at most {self._app.limits.body} bytes")

    def _refuse(self, refusal: Refusal) -> None:
        self.is_refused = True
        if self._reply.status is not None:
            self._reply.abort()
            self._record.abort_cause = "defect"
        else:
            if refusal.status >= 400:
                self._record.refusal = refusal.reason
            self._reply.send_refusal(refusal)
            if not self._is_being_read:
                self._stop_waiting()
                self._reply.release()
        self._close_record("error")

    def _close_record(self, finish_reason: str) -> None:
        record = self._record
        record.status = self._reply.status
        if self._endpoint is not None and self._endpoint.generates:
            record.finish_reason = finish_reason
        record.close()


def _body_length(version: str, headers: HTTPHeaders) -> int | None:
    """Return the length of the body, None if only its end will tell.

    Tornado makes the same checks after us, but answers without a text.
    """
    length, coding = headers.get("Content-Length"), headers.get("Transfer-Encoding")
    if coding is not None:
        if length is not None or coding.lower() != "chunked":
            raise Refusal(400, "send a Content-Length, or Transfer-Encoding: chunked and no other")
        if version == "HTTP/1.0":
            # Who passes it on may not know it, and see the end of the request elsewhere.
            raise Refusal(400, "HTTP/1.0 has no Transfer-Encoding: send a Content-Length")
        return None
    if length is None:
        return 0
    if not (length.isascii() and length.isdigit() and len(length) <= _LENGTH_DIGITS):
        raise Refusal(400, f"Content-Length must be a number, not {_shown(length)}")
    return int(length)


def _shown(text: str) -> str:
    return ascii(text.strip()[:80]) if text.strip() else "nothing"
