"""The sockets that are listened on."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from typing import TYPE_CHECKING, Final

from tornado.netutil import bind_sockets

from llm_api.address import Address, UnixAddress

if TYPE_CHECKING:
    from collections.abc import Sequence

_BACKLOG: Final = 128  # Tornado's


class ServeError(Exception):
    """The address cannot be served on; the text says why."""


class UnixListener(socket.socket):
    """A listening Unix socket that takes its file along when it closes."""

    def __init__(self, address: UnixAddress) -> None:
        """Bind and listen. Raises OSError."""
        self._path = ""
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self.setblocking(False)
        # With chmod afterwards there would be a moment in which others might come in.
        mask = os.umask(0o777 & ~address.mode)
        try:
            self.bind(address.path)
            self._path = os.path.abspath(address.path)
            self._id = _file_id(self._path)
            self.listen(_BACKLOG)
        except OSError:
            self.close()
            raise
        finally:
            os.umask(mask)

    def close(self) -> None:
        """Remove the file first, unless another has taken its place, so that none is stale."""
        if self._path:
            with contextlib.suppress(OSError):
                if _file_id(self._path) == self._id:
                    os.unlink(self._path)
            self._path = ""
        super().close()


def bind(address: Address | UnixAddress) -> Sequence[socket.socket]:
    """Open the listening sockets of an address. Raises ServeError."""
    try:
        if isinstance(address, UnixAddress):
            _remove_stale(address.path)
            return [UnixListener(address)]
        return bind_sockets(address.port, address.host)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ServeError(f"cannot serve on {address}: {reason}") from error


def describe(listening: socket.socket, *, is_secure: bool) -> str:
    """Say where a socket listens, as far as there is one as a URL."""
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        path = os.fsdecode(name).replace("\0", "@", 1)  # an abstract name begins with a zero
        return f"unix:{path}" + (" with TLS" if is_secure else "")
    return f"{'https' if is_secure else 'http'}://{Address(*name[:2])}"


def _remove_stale(path: str) -> None:
    """Remove the socket that a process has left behind which ended without a chance to.

    Raises OSError where the file is anything else, a socket with a listener above all.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(None, "there is a file of this name that is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)  # a full backlog is a listener too
        try:
            client.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass
    raise FileExistsError(None, "another process listens there")


def _file_id(path: str) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino
