"""Notices clients that go away while nothing is read from them or written to them."""

from __future__ import annotations

import contextlib
import select
from functools import partial
from typing import TYPE_CHECKING

from tornado.http1connection import HTTP1Connection

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from tornado.httputil import HTTPConnection
    from tornado.iostream import IOStream


class PeerWatch:
    """Closes the stream of a client that has gone, which tells whoever writes to it.

    Tornado sees the end of a connection only when it reads or writes, and it does not read
    while the next request of a pipeline waits in its buffer. The kernel knows at once: one
    epoll instance of our own holds the sockets of all requests in flight and sits itself in
    the event loop, so that watching costs no timer.

    A client that closes its sending half only (``nc -N``) looks the same from here and is
    taken for gone, as Tornado does by itself when it reads the end of the stream.

    HTTP/2 connections are read all the time and need no watching. Systems without epoll are
    left with what Tornado notices.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._streams: dict[int, IOStream] = {}
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        if self._epoll is not None:
            loop.add_reader(self._epoll.fileno(), self._close_the_gone)

    def watch(self, connection: HTTPConnection) -> Callable[[], None]:
        """Watch a connection's peer until the function returned is called."""
        if self._epoll is None or not isinstance(connection, HTTP1Connection):
            return lambda: None
        stream = connection.stream
        if stream.closed():
            return lambda: None
        fd = stream.socket.fileno()
        self._epoll.register(fd, select.EPOLLRDHUP)  # errors and hang-ups are always reported
        self._streams[fd] = stream
        return partial(self._forget, fd, stream)

    def _forget(self, fd: int, stream: IOStream) -> None:
        # The stream may be closed by now, and the number another's.
        if self._epoll is None or self._streams.get(fd) is not stream:
            return
        del self._streams[fd]
        # The kernel drops a closed socket by itself.
        with contextlib.suppress(OSError):
            self._epoll.unregister(fd)

    def close(self) -> None:
        """Watch nobody any more."""
        if self._epoll is not None:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _close_the_gone(self) -> None:
        assert self._epoll is not None
        for fd, _ in self._epoll.poll(0):
            stream = self._streams[fd]
            self._forget(fd, stream)
            stream.close()
