"""A reply in the making, to iterate over."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from llm_api.errors import GenerationError
from llm_api.events import End, FinishReason, Usage

__all__ = ["Generation"]

_MAX_UNREAD_CHARS: Final = 1 << 20
"""A reply that may be endless (`n_keep`) ends when so much of it has not been read."""


class Mailbox:
    """The listener of a `Generation`: takes on one thread, gives on another, or to an event loop.

    The engine holds this object and not the generation, so that a generation that nobody holds is
    collected.
    """

    def __init__(self, may_block: Callable[[], bool]) -> None:
        self.end: End | None = None
        self._may_block = may_block
        self._texts: list[str] = []
        self._unread = 0
        self._is_overrun = False
        self._changed = threading.Condition()
        self._waiter: tuple[asyncio.AbstractEventLoop, asyncio.Future[None]] | None = None

    def on_text(self, text: str) -> None:
        """Take text; raises if too much of it was not read, which ends the request."""
        with self._changed:
            self._unread += len(text)
            if self._unread > _MAX_UNREAD_CHARS:
                self._is_overrun = True
                self._wake()
                raise GenerationError("the reply was not read")
            self._texts.append(text)
            self._wake()

    def on_end(self, end: End) -> None:
        """Take the end."""
        with self._changed:
            self.end = end
            self._wake()

    def take(self) -> str:
        """Wait for text and return all there is; empty after the end."""
        with self._changed:
            if not self._is_ready() and not self._may_block():
                raise RuntimeError("this thread delivers the reply: use `async for`")
            self._changed.wait_for(self._is_ready)
            return self._take_now()

    async def take_async(self) -> str:
        """Do the same without blocking the event loop."""
        loop = asyncio.get_running_loop()
        while True:
            with self._changed:
                if self._is_ready():
                    return self._take_now()
                future = loop.create_future()
                self._waiter = (loop, future)
            await future

    def _is_ready(self) -> bool:
        return bool(self._texts or self.end or self._is_overrun)

    def _take_now(self) -> str:
        text = "".join(self._texts)
        self._texts.clear()
        self._unread = 0
        if not text and self._is_overrun:
            raise GenerationError("the reply was cut because it was not read")
        return text

    def _wake(self) -> None:
        self._changed.notify_all()
        if self._waiter is not None:
            loop, future = self._waiter
            self._waiter = None
            # Whoever waited on a loop that is closed now is gone.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_resolve, future)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Generation:
    """A reply in the making: an iterator, and an asynchronous one, of its pieces of text.

    It is computed whether or not it is read. It is cancelled by `cancel`, at the end of a `with`
    block, and when the last reference goes: leaving a loop over it early is enough.

    If the engine fails in the middle, iteration raises GenerationError after the text that was
    made until then.
    """

    def __init__(self, request_id: int, mailbox: Mailbox, cancel: Callable[[int], None]) -> None:
        self.id: Final = request_id
        self._mailbox = mailbox
        self._cancel = cancel
        self._is_done = False

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the reply ended; None before the end."""
        end = self._mailbox.end
        return end.finish_reason if end else None

    @property
    def usage(self) -> Usage | None:
        """What the request used; None before the end."""
        end = self._mailbox.end
        return end.usage if end else None

    def cancel(self) -> None:
        """Stop at once; what was made until then can still be read."""
        if self._mailbox.end is None:
            self._cancel(self.id)

    close = cancel

    def text(self) -> str:
        """Wait for the end and return all text that was not read yet."""
        return "".join(self)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        text = "" if self._is_done else self._mailbox.take()
        if not text:
            self._finish()
            raise StopIteration
        return text

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        text = "" if self._is_done else await self._mailbox.take_async()
        if not text:
            self._finish()
            raise StopAsyncIteration
        return text

    def _finish(self) -> None:
        """Mark the end; the first time, raise what went wrong."""
        end = self._mailbox.end
        if not self._is_done and end is not None and end.finish_reason == "error":
            self._is_done = True
            raise GenerationError(end.error)
        self._is_done = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()

    def __del__(self) -> None:
        self.cancel()
