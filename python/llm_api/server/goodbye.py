"""The end of a connection whose client may still be sending.

To close with unread bytes resets the connection, and a reset can take away what the client has not
read yet: the reply that says why it ended. So our side ends first, and what still comes is read and
dropped for a moment (RFC 9112, section 9.6).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tornado.iostream import IOStream

_SECONDS: Final = 2.0
_BYTES: Final = 1 << 20
"""More than this is not read: the client has to wait then, and finds the reply."""

_dropped: Final = bytearray(64 << 10)


class Goodbyes:
    """The connections that are ending so. Made and used on the thread of the event loop."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def say(self, stream: IOStream) -> asyncio.Task[None] | None:
        """Keep the connection of a stream that is going to be closed, for its goodbye.

        None if there can be none: the last reply is not on its way, or there are no descriptors.
        """
        if stream.closed() or stream.writing():
            return None
        try:
            # Of the stream's own descriptor nothing is left when it is closed.
            connection = socket.socket(fileno=os.dup(stream.socket.fileno()))
        except OSError:
            return None
        task = asyncio.get_running_loop().create_task(_linger(connection))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def cut(self) -> None:
        """Close them all."""
        for task in self._running:
            task.cancel()


async def _linger(connection: socket.socket) -> None:
    # Below TLS, if there is any: nobody looks at what comes.
    loop = asyncio.get_running_loop()
    left = _BYTES
    with connection, contextlib.suppress(OSError, TimeoutError):
        connection.setblocking(False)
        connection.shutdown(socket.SHUT_WR)
        async with asyncio.timeout(_SECONDS):
            while size := await loop.sock_recv_into(connection, _dropped):
                left -= size
                if left < 0:
                    await asyncio.sleep(_SECONDS)
