"""One HTTP/2 connection: frames in, streams, frames out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
from collections import deque
from typing import TYPE_CHECKING, Final

from h2 import events
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from tornado.iostream import StreamClosedError

from llm_api.server.http2.frames import MAX_PAYLOAD, Frame, FrameReader, FrameType, Guard, Violation
from llm_api.server.http2.header_timer import HeaderTimer
from llm_api.server.http2.preface import PREFACE
from llm_api.server.http2.protocol import cap_header_table, goaway, make_protocol
from llm_api.server.http2.stream import Context, Fields, Http2Stream

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tornado.httputil import HTTPServerConnectionDelegate
    from tornado.iostream import IOStream

    from llm_api.limits import Limits
    from llm_api.server.http2.turns import Turns

_log: Final = logging.getLogger("llm_api.server")

_READ_BYTES: Final = 64 << 10
_HIGH_WATER: Final = 64 << 10
"""More output than this is not made before the kernel has taken some."""
_GRACE_SECONDS: Final = 1.0
_GOODBYE_SECONDS: Final = 1.0
_GOODBYE_BYTES: Final = 1 << 20
_ANY_STREAM: Final = (1 << 31) - 1
_LAST_CALL: Final = b"lastcall"
_LATE: Final = Violation(ErrorCodes.ENHANCE_YOUR_CALM, "a header block that did not come in time")
_IN_BLOCKS: Final = (FrameType.HEADERS, FrameType.CONTINUATION)
_QUOTED: Final = re.compile(r"\s*b?['\"]", re.DOTALL)
"""h2 repeats what it refuses, which may be a key; that is not for the log."""


class Http2Connection:
    """Serves the requests of one client.

    Whatever is to be sent is gathered during a turn of the event loop and goes to the socket in
    one write at its end. Data of streams is taken a frame from each in turn, as far as windows
    and kernel allow; what they do not take stays with its stream, whose writer is told to wait.
    """

    def __init__(
        self,
        stream: IOStream,
        context: Context,
        delegate: HTTPServerConnectionDelegate,
        limits: Limits,
        turns: Turns,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.context = context
        self.limits = limits
        self._stream = stream
        self._delegate = delegate
        self._turns = turns
        self._h2 = make_protocol(limits)
        self._guard = Guard(limits, self.loop.time)
        self._reader = FrameReader()
        self._header_timer = HeaderTimer(limits.header_timeout, lambda: self._end_for(_LATE))
        self._streams: dict[int, Http2Stream] = {}
        self._queue: deque[Http2Stream] = deque()
        self._blocked: dict[Http2Stream, None] = {}
        """Streams that wait for a window, the longest waiting first."""
        self._out = bytearray()
        self._reserved = 0
        self._held = 0
        self._unwritten: asyncio.Future[None] | None = None
        """A write that the kernel has not taken yet."""
        self._is_flush_due = False
        self._is_shutting_down = False
        self._last_stream_id = _ANY_STREAM
        """The last one that counts, by the GOAWAY sent last; it must never rise."""
        self._is_last = False
        """No stream is taken any more; the connection ends with those it has."""
        self._is_ending = False
        """GOAWAY is sent and nothing is read any more but to let the client see it."""
        self._timer: asyncio.TimerHandle | None = None
        self._closed = self.loop.create_future()

    async def serve(self) -> None:
        """Serve until the connection is closed."""
        self._stream.set_nodelay(True)
        self._wait_for_requests()
        self._flush_soon()
        try:
            if await self._stream.read_bytes(len(PREFACE)) != PREFACE:
                self._end(ErrorCodes.PROTOCOL_ERROR)
            while not self._is_ending:
                await self._take(await self._stream.read_bytes(_READ_BYTES, partial=True))
            # Closing with unread data would reset the connection before the client has read all.
            left = _GOODBYE_BYTES
            while left > 0:
                left -= len(await self._stream.read_bytes(_READ_BYTES, partial=True))
        except StreamClosedError:
            pass
        finally:
            self._is_ending = True
            self._stop_timer()
            self._header_timer.watch(None)
            self._lose_all()
            self._stream.close()
            self._closed.set_result(None)

    def shut_down(self) -> None:
        """Take no new requests, and end with the last one that is running.

        The first GOAWAY only asks for no more. Once the client has seen it, which its answer to
        a PING tells, the second one says which of its requests still counted.
        """
        if not self._is_ending and not self._is_shutting_down:
            self._is_shutting_down = True
            self._say_goaway(ErrorCodes.NO_ERROR, _ANY_STREAM)
            self._h2.ping(_LAST_CALL)
            self.loop.call_later(_GRACE_SECONDS, self._take_no_more)
            self._flush_soon()

    async def close(self) -> None:
        """Break off what is left, and close."""
        self._end(ErrorCodes.NO_ERROR)
        await self._closed

    # What comes in.

    async def _take(self, data: bytes) -> None:
        frames = self._reader.feed(data)
        is_done = is_unfinished = False
        while not is_done and not self._stream.closed():
            await self._turns.begin(is_unfinished=is_unfinished)
            try:
                is_done = self._handle_some(frames)
            finally:
                await self._turns.end()
            is_unfinished = True
            if self._unwritten is not None and len(self._out) > _HIGH_WATER:
                await asyncio.wait((self._unwritten,))
        if not self._is_ending:
            is_in_block = self._guard.is_in_block or self._reader.begun in _IN_BLOCKS
            self._header_timer.watch(self._guard.blocks if is_in_block else None)

    def _handle_some(self, frames: Iterator[Frame]) -> bool:
        """Handle frames while there is time; tell whether that was all."""
        try:
            for frame in frames:
                self._guard.check(frame)
                self._handle(frame)
                if self._is_ending:
                    break
                if self._turns.is_over() or len(self._out) > _HIGH_WATER:
                    self._flush()
                    return False
        except Violation as violation:
            self._end_for(violation)
        return True

    def _handle(self, frame: Frame) -> None:
        if frame.type == FrameType.GOAWAY and frame.stream_id == 0 and frame.length >= 8:
            # h2 would close the connection, but the streams that are open may end.
            self._is_last = True
            self._flush_soon()
            return
        if frame.stream_id and frame.stream_id not in self._streams:
            self._guard.check_unopened(frame, self._h2.highest_inbound_stream_id)
        try:
            happened = self._h2.receive_data(frame.data)
        except ProtocolError as error:
            self._h2.clear_outbound_data_buffer()  # its own GOAWAY
            raise Violation(error.error_code, _QUOTED.split(str(error), 1)[0]) from error
        for event in happened:
            self._react(event)
        self._collect()
        self._flush_soon()

    def _react(self, event: events.Event) -> None:  # noqa: PLR0912 - one case for each event
        match event:
            case events.RequestReceived():
                self._begin(event)
            case events.DataReceived():
                size = event.flow_controlled_length
                self._h2.acknowledge_received_data(size, event.stream_id)
                if event.data and (stream := self._streams.get(event.stream_id)):
                    stream.take_data(event.data)
            case events.StreamEnded():
                if stream := self._streams.get(event.stream_id):
                    stream.end_request()
            case events.StreamReset():
                if stream := self._streams.get(event.stream_id):
                    stream.lose()
                self._guard.count_reset()
            case events.WindowUpdated():
                if not event.stream_id:
                    self._unblock_all()
                elif stream := self._streams.get(event.stream_id):
                    self._blocked.pop(stream, None)
                    self.send_later(stream)
            case events.RemoteSettingsChanged():
                cap_header_table(self._h2)
                self._unblock_all()
            case events.PingAckReceived():
                if event.ping_data == _LAST_CALL and self._is_shutting_down:
                    self._take_no_more()

    def _begin(self, event: events.RequestReceived) -> None:
        if self._is_last or len(self._streams) >= self.limits.streams:
            self._h2.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)
            self._guard.count_reset()
            return
        stream = Http2Stream(self, event.stream_id)
        self._streams[stream.id] = stream
        self._stop_timer()
        delegate = self._delegate.start_request(self, stream)
        stream.begin(event.headers, delegate, has_body=event.stream_ended is None)

    # What goes out: the side that streams see.

    def send_headers(self, stream: Http2Stream, fields: Fields) -> None:
        """Send a header block at the end of this turn of the loop."""
        self._h2.send_headers(stream.id, fields)
        self._flush_soon()

    def reserve(self, stream: Http2Stream, size: int) -> bool:
        """Set room for more data aside in what is sent at the end of this turn, if there is."""
        wanted = self._reserved + size
        if self._unwritten is not None or wanted > _HIGH_WATER:
            return False
        if wanted > self._h2.local_flow_control_window(stream.id):
            return False
        self._reserved = wanted
        return True

    def send_later(self, stream: Http2Stream) -> None:
        """Send what the stream has, at the end of this turn or when the client takes it."""
        if not stream.is_queued:
            stream.is_queued = True
            self._queue.append(stream)
        self._flush_soon()

    def reset(self, stream: Http2Stream, code: ErrorCodes) -> None:
        """Send RST_STREAM, after what can be sent before it."""
        while self._unwritten is None and self._send_piece(stream):
            pass
        if stream.is_open:
            self._h2.reset_stream(stream.id, code)
            stream.close()
            self._flush_soon()

    def hold(self, size: int) -> bool:
        """Count bytes of bodies that are kept; False, and they are not counted, if too many."""
        if self._held + size > self.limits.bodies:
            return False
        self._held += size
        return True

    def forget(self, stream: Http2Stream) -> None:
        """Note that a stream is over."""
        del self._streams[stream.id]
        self._blocked.pop(stream, None)
        if not self._streams and not self._is_ending:
            self._wait_for_requests()
            self._flush_soon()

    # What goes out: the side of the socket.

    def _flush_soon(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        if self._stream.closed() or self._unwritten is not None:
            return
        self._reserved = 0
        self._collect()
        while self._queue and len(self._out) < _HIGH_WATER:
            stream = self._queue.popleft()
            if self._send_piece(stream):
                self._queue.append(stream)
            else:
                stream.is_queued = False
        if self._out:
            self._write()
        if self._unwritten is None and not self._stream.closed():
            if self._queue:
                self._flush_soon()
            elif self._is_ending:
                with contextlib.suppress(OSError):
                    self._stream.socket.shutdown(socket.SHUT_WR)
            elif self._is_last and not self._streams:
                self._end(ErrorCodes.NO_ERROR)

    def _write(self) -> None:
        written = self._stream.write(bytes(self._out))
        self._out.clear()
        if written.done():
            return
        self._unwritten = written
        stalled = self.loop.call_later(self.limits.write_stall, self._stream.close)

        def go_on(_: asyncio.Future[None]) -> None:
            stalled.cancel()
            self._unwritten = None
            self._flush_soon()

        written.add_done_callback(go_on)

    def _send_piece(self, stream: Http2Stream) -> bool:
        """Send a frame of a stream; False if there is nothing more that could be sent now."""
        if not stream.is_open:
            return False
        window = self._h2.local_flow_control_window(stream.id)
        size = max(0, min(len(stream.unsent), window, MAX_PAYLOAD))
        is_end = stream.is_ending and size == len(stream.unsent)
        if size or is_end:
            self._h2.send_data(stream.id, bytes(stream.unsent[:size]), end_stream=is_end)
            self._collect()
            self._guard.note_data_sent()
            del stream.unsent[:size]
            if is_end:
                if not stream.is_read:
                    # The client need not send the rest of its body.
                    self._h2.reset_stream(stream.id, ErrorCodes.NO_ERROR)
                stream.close()
            elif not stream.unsent:
                stream.note_taken()
            else:
                return True
        elif stream.unsent:
            self._blocked[stream] = None
        return False

    def _collect(self) -> None:
        self._out += self._h2.data_to_send()

    def _unblock_all(self) -> None:
        blocked, self._blocked = self._blocked, {}
        for stream in blocked:
            self.send_later(stream)

    # How it ends.

    def _wait_for_requests(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(self.limits.idle_timeout, self._end, ErrorCodes.NO_ERROR)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _take_no_more(self) -> None:
        if not self._is_last and not self._is_ending:
            self._is_last = True
            self._say_goaway(ErrorCodes.NO_ERROR, self._highest_stream_id())

    def _say_goaway(self, code: ErrorCodes, last_stream_id: int) -> None:
        # Not through h2, which sends nothing more after its first one.
        self._collect()
        self._out += goaway(code, last_stream_id)
        self._last_stream_id = last_stream_id
        self._flush_soon()

    def _highest_stream_id(self) -> int:
        return min(self._last_stream_id, self._h2.highest_inbound_stream_id)

    def _end_for(self, violation: Violation) -> None:
        _log.info("closed the connection of %s: %s", self.context.remote_ip, violation)
        self._end(violation.code)

    def _end(self, code: ErrorCodes) -> None:
        if not self._is_ending:
            self._is_ending = True
            self._lose_all()
            if code != ErrorCodes.NO_ERROR or self._last_stream_id == _ANY_STREAM:
                self._say_goaway(code, self._highest_stream_id())
            self._flush_soon()
            self._stop_timer()
            self._header_timer.watch(None)
            self._timer = self.loop.call_later(_GOODBYE_SECONDS, self._stream.close)

    def _lose_all(self) -> None:
        for stream in tuple(self._streams.values()):
            stream.lose()
