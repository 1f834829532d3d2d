"""From the engine's events to the bytes of one reply."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Literal, Protocol

from llm_api.events import End, Usage
from llm_api.server.refusals import refusal_for
from llm_api.server.reply import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llm_api._native import Measures
    from llm_api.events import End, EngineState, Listener
    from llm_api.limits import Limits
    from llm_api.prompt import Prompt
    from llm_api.server.reply import Reply

_log: Final = logging.getLogger("llm_api.server")

_THREADS: Final = ThreadPoolExecutor(2, thread_name_prefix="llm-api-prompts")
"""Where long prompts become tokens."""

_NOTHING: Final = Usage(0, 0, 0, 0.0, 0.0, 0.0, 0)

_PIECE_BYTES: Final = 16 << 10
"""What is written at once, so that a slow reader is told from one that has stopped reading."""


AbortCause = Literal["inference", "slow_reader", "shutdown", "defect"]


class Engine(Protocol):
    """What the server asks of `llm_api.Engine`."""

    @property
    def state(self) -> EngineState:
        """Whether requests are computed."""

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Call listeners on this loop from now on."""

    def start(self, prompt: Prompt | str, options: Mapping[str, object], listener: Listener) -> int:
        """Queue a request; a listener follows it."""

    def cancel(self, request_id: int) -> None:
        """Make a request end now; its end is still reported."""

    def stats(self) -> dict[str, int]:
        """Return the state and the counters."""

    def measures(self) -> Measures:
        """Return what was measured."""

    def close(self) -> None:
        """End all requests and free the memory."""


class Stream:
    """Sends one generation to one reader; the listener that the engine calls.

    The status is sent with the first text, so that whatever fails before it is still told by
    another status. Events of one engine step make one write, straight to the connection: no
    task, no timer and no wake-up for a chunk. Only while the kernel takes no more does text
    collect here, up to a limit and for a limited time; then the reader loses its stream. The
    engine waits for no reader.
    """

    def __init__(
        self, reply: Reply, engine: Engine, limits: Limits, on_over: Callable[[Stream], None]
    ) -> None:
        self.end: End | None = None
        """How the generation ended."""
        self.was_delivered = False
        """The reader got all of it, or the status that says why not."""
        self.refusal: Refusal | None = None
        """What was sent in place of a reply."""
        self.abort_cause: AbortCause | None = None
        """Why the reply was broken off after its first byte."""
        self.transcript: list[str] | None = None
        """All of the text, if somebody wants it."""
        self._reply = reply
        self._engine = engine
        self._limits = limits
        self._on_over = on_over
        self._loop = asyncio.get_running_loop()
        self._request_id: int | None = None
        self._start: Future[int] | None = None
        self._failure: Refusal | None = None
        self._unsent = bytearray()
        self._is_due = False
        self._is_blocked = False
        self._is_over = False

    def begin(self, prompt: Prompt | str, options: Mapping[str, object]) -> None:
        """Start the generation. Raises what the engine raises; there is no stream then."""
        self._request_id = self._engine.start(prompt, options, self)
        self._reply.on_reader_gone(self._leave)

    def begin_long(self, prompt: Prompt | str, options: Mapping[str, object]) -> None:
        """Do the same on another thread, for a prompt that takes a while to become tokens.

        What the engine raises is then an end, and answered as it would have been.
        """
        self._reply.on_reader_gone(self._leave)
        self._start = _THREADS.submit(self._engine.start, prompt, options, self)
        self._start.add_done_callback(self._post_begun)

    def _post_begun(self, start: Future[int]) -> None:
        self._loop.call_soon_threadsafe(self._begun, start)

    def _begun(self, start: Future[int]) -> None:
        if start.cancelled():
            self.on_end(End("cancelled", None, _NOTHING))
            return
        error = start.exception()
        if error is None:
            self._request_id = start.result()
            if not self._reply.is_open:
                self._leave()
            return
        self._failure = refusal_for(error) if isinstance(error, Exception) else None
        if self._failure is None:
            _log.error("a request failed", exc_info=error)
        self.on_end(End("error", str(error), _NOTHING))

    def on_text(self, text: str) -> None:
        """Take text from the engine."""
        if self.transcript is not None:
            self.transcript.append(text)
        if self._reply.is_open:
            self._unsent += text.encode()
            self._make_due()

    def on_end(self, end: End) -> None:
        """Take the end from the engine."""
        self.end = end
        self._make_due()

    def cut(self, cause: AbortCause) -> None:
        """Break the reply off and stop its generation."""
        self._abort(cause)
        self._leave()

    def _abort(self, cause: AbortCause) -> None:
        if self._reply.is_open and self._reply.status is not None:
            self.abort_cause = cause
        self._reply.abort()

    def _leave(self) -> None:
        """Nobody reads any more."""
        self._unsent.clear()
        self._cancel()
        self._make_due()

    def _cancel(self) -> None:
        if self.end is None and self._request_id is not None:
            self._engine.cancel(self._request_id)
        elif self._start is not None:
            self._start.cancel()  # if it still waits for a thread

    def _make_due(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._advance)

    def _advance(self) -> None:
        self._is_due = False
        try:
            is_ready = self._keep() if self._reply.must_be_whole else self._send()
            if self.end is not None and is_ready:
                self._conclude(self.end)
        except Exception:
            _log.exception("a reply failed")
            self.cut("defect")
        if self.end is not None and not self._reply.is_open and not self._is_over:
            self._is_over = True
            self._on_over(self)

    def _keep(self) -> bool:
        """Keep the text until the reply can be sent whole, up to the limit of unsent text."""
        if len(self._unsent) > self._limits.unsent and self.end is None and self._failure is None:
            self._failure = Refusal(
                500,
                f"the reply is longer than {self._limits.unsent} bytes, which on HTTP/1.0 over a "
                "Unix socket is sent whole or not at all: ask with HTTP/1.1",
            )
            self._cancel()
        return True

    def _send(self) -> bool:
        """Send what the kernel takes; tell whether that was all."""
        while self._unsent and self._reply.is_open and not self._is_blocked:
            piece = bytes(self._unsent[:_PIECE_BYTES])
            del self._unsent[:_PIECE_BYTES]
            has_begun = self._reply.status is not None
            flushed = self._reply.write(piece) if has_begun else self._reply.start(piece)
            if not flushed.done():
                self._block(flushed)
        if len(self._unsent) > self._limits.unsent:
            self.cut("slow_reader")
        return not self._unsent and not self._is_blocked

    def _block(self, flushed: asyncio.Future[None]) -> None:
        self._is_blocked = True
        timer = self._loop.call_later(self._limits.write_stall, self.cut, "slow_reader")

        def unblock(_: asyncio.Future[None]) -> None:
            timer.cancel()
            self._is_blocked = False
            self._make_due()

        flushed.add_done_callback(unblock)

    def _conclude(self, end: End) -> None:
        reply = self._reply
        if not reply.is_open:
            return
        has_begun = reply.status is not None
        is_whole = end.finish_reason not in ("error", "cancelled")
        if has_begun and not is_whole:
            self._abort("inference" if end.finish_reason == "error" else "shutdown")
            return
        if has_begun:
            reply.finish()
        else:
            self.refusal = refusal = self._failure or _refusal(end)
            if refusal is None:
                reply.send(200, self._unsent.decode())
            else:
                reply.send_refusal(refusal)
            reply.release()
        self.was_delivered = True


def _refusal(end: End) -> Refusal | None:
    """Tell why an end without any text is not an empty reply."""
    if end.finish_reason == "error":
        return Refusal(500, "inference failed", reason="inference_failed")
    if end.finish_reason == "cancelled":
        return Refusal(503, "server is shutting down", reason="shutting_down")
    if end.finish_reason == "length" and end.usage.completion_tokens == 0:
        return Refusal(
            503,
            "max-time passed before the first token: try again or raise maxTime",
            reason="max_time",
        )
    return None
