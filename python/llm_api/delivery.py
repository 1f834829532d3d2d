"""Brings the engine's events to their listeners."""

import asyncio
import contextlib
import logging
import os
import selectors
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from llm_api.errors import EngineClosedError
from llm_api.events import End, Listener, Usage

if TYPE_CHECKING:
    from llm_api import _native

_log = logging.getLogger("llm_api.engine")


class Delivery:
    """Waits for the engine's bell and calls the listeners, on one thread.

    That thread is an event loop's once `attach` was called, until then one of our own, started
    with the first request. It drains all events at once, however many requests they are of.
    """

    def __init__(self, native: "_native.Engine") -> None:
        self._native = native
        self._bell = native.bell
        self._listeners: dict[int, Listener] = {}
        # Held while a request is submitted, so that its events find its listener.
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: _BellThread | None = None
        self._is_closed = False

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Deliver on `loop` from now on; to be called on its thread."""
        self._stop()
        self._loop = loop
        loop.add_reader(self._bell, self._deliver_all)

    def is_on_this_thread(self) -> bool:
        """Whether listeners are called on the thread that asks."""
        if self._loop is None:
            return self._thread is not None and self._thread.is_current()
        try:
            return asyncio.get_running_loop() is self._loop
        except RuntimeError:
            return False

    def submit(
        self, prompt: list[tuple[str, bool]], options: dict[str, object], to: Listener
    ) -> int:
        """Submit a request whose events go to the listener `to`; return its id."""
        request = self._native.prepare(prompt, options)  # slow, so not under the lock
        with self._lock:
            if self._is_closed:
                raise EngineClosedError("the engine is closed")
            request_id = self._native.submit(request)
            self._listeners[request_id] = to
            if self._loop is None and self._thread is None:
                self._thread = _BellThread(self._bell, self._deliver_all)
            return request_id

    def close(self) -> None:
        """Close the engine, and deliver its last events on this thread."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        self._stop()
        self._deliver(self._native.close())

    def _stop(self) -> None:
        if self._loop is not None:
            self._loop.remove_reader(self._bell)
            self._loop = None
        if self._thread is not None:
            self._thread.stop()
            self._thread = None

    def _deliver_all(self) -> None:
        with self._lock:
            events = self._native.drain()
        self._deliver(events)

    def _deliver(self, events: "list[_native._Event]") -> None:
        """Call the listeners of the events; one that raises loses its request alone."""
        for request_id, text, end in events:
            listener = self._listeners.get(request_id)
            if listener is None:
                continue
            if end is not None:
                del self._listeners[request_id]
            try:
                if text:
                    listener.on_text(text)
                if end is not None:
                    listener.on_end(_end(end))
            except Exception:
                _log.exception("the listener of request %d failed", request_id)
                if self._listeners.pop(request_id, None) is not None:
                    with contextlib.suppress(EngineClosedError):
                        self._native.cancel(request_id)


def _end(end: "_native._End") -> End:
    reason, error, prompt, cached, completion, queue, prefill, decode, pauses = end
    return End(
        reason,
        error,
        Usage(
            prompt_tokens=prompt,
            cached_tokens=cached,
            completion_tokens=completion,
            queue_seconds=queue,
            prefill_seconds=prefill,
            decode_seconds=decode,
            pauses=pauses,
        ),
    )


class _BellThread:
    """Calls a function whenever a descriptor is readable."""

    def __init__(self, bell: int, ring: Callable[[], None]) -> None:
        self._stopped, self._stop = os.pipe()
        self._thread = threading.Thread(
            target=self._run, args=(bell, ring), name="llm-api-events", daemon=True
        )
        self._thread.start()

    def _run(self, bell: int, ring: Callable[[], None]) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(bell, selectors.EVENT_READ)
            selector.register(self._stopped, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select()}
                if self._stopped in ready:
                    break
                ring()
        os.close(self._stopped)

    def is_current(self) -> bool:
        return threading.current_thread() is self._thread

    def stop(self) -> None:
        """End the thread; on the thread itself, after the call in progress."""
        os.close(self._stop)
        if not self.is_current():
            self._thread.join()
