"""Taking new connections from a listening socket."""

from __future__ import annotations

import asyncio
import logging
import resource
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

_log: Final = logging.getLogger("llm_api.server")

_AT_ONCE: Final = 64
"""Then everybody else has a turn."""
_RETRY_SECONDS: Final = 0.5
_LOG_SECONDS: Final = 60.0


_OTHER_DESCRIPTORS: Final = 128
"""Those of the program itself; a loaded model keeps few."""


def allow_connections(number: int) -> None:
    """Raise the soft limit of open files so that there can be so many connections."""
    needed = number + _OTHER_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft == unlimited or soft >= needed:
        return
    possible = needed if hard == unlimited else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    if possible < needed:
        _log.warning("the hard limit of open files is %d, too few for %d connections", hard, number)


class Acceptor:
    """Accepts connections until it is stopped, and pauses when the system has none to give.

    Without file descriptors a listening socket stays ready and `accept` fails: an event loop
    that simply tried again would do nothing else. The clients wait in the backlog meanwhile.
    """

    def __init__(
        self, listening: socket.socket, take: Callable[[socket.socket, Any], None]
    ) -> None:
        self._listening = listening
        self._take = take
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        self._logged_at: float | None = None
        self._resume()

    def stop(self) -> None:
        """Accept no more; the socket is not closed."""
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._listening)

    def _resume(self) -> None:
        self._retry = None
        self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, address = self._listening.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                self._pause(error)
                return
            self._take(connection, address)

    def _pause(self, error: OSError) -> None:
        self._loop.remove_reader(self._listening)
        self._retry = self._loop.call_later(_RETRY_SECONDS, self._resume)
        now = self._loop.time()
        if self._logged_at is None or now - self._logged_at > _LOG_SECONDS:
            _log.warning(
                "no connection can be accepted for now: %s; new clients wait. Lower "
                "-max-connections, or raise the limit of open files (ulimit -n)",
                error.strerror,
            )
        self._logged_at = now
