"""What systemd hands to a service, and what it wants to hear (sd_listen_fds(3), sd_notify(3)).

Both are environment variables and sockets; nothing here needs a library, or systemd.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import TYPE_CHECKING, Final

from llm_api.server.listening import ServeError

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_log: Final = logging.getLogger("llm_api.server")

_FIRST_FD: Final = 3
_FAMILIES: Final = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
_NOTIFY_SECONDS: Final = 1.0


def take_sockets(environment: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """Take the listening sockets that this process was started with; mostly there are none.

    The variables are removed, so that they are taken once. Raises ServeError if what is handed
    over is no listening stream socket.
    """
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return []
    del environment["LISTEN_PID"]
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if not (count.isascii() and count.isdigit() and len(count) < 5):
        raise ServeError(f"LISTEN_FDS must be a number, not {count!a}")
    names += [""] * int(count)
    return [_adopt(_FIRST_FD + index, names[index]) for index in range(int(count))]


def _adopt(fd: int, name: str) -> socket.socket:
    where = f"file descriptor {fd}" + (f" ({name})" if name else "")
    try:
        adopted = socket.socket(fileno=fd)
    except OSError as error:
        raise ServeError(f"{where} from systemd: {error.strerror}") from error
    is_stream = adopted.type == socket.SOCK_STREAM and adopted.family in _FAMILIES
    if not is_stream or not adopted.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        adopted.close()
        raise ServeError(
            f"{where} from systemd is not a listening stream socket: "
            "use ListenStream= and Accept=no"
        )
    adopted.set_inheritable(False)
    adopted.setblocking(False)
    return adopted


class ServiceManager:
    """Hears how far the service is; where there is no NOTIFY_SOCKET, nobody does."""

    def __init__(self, environment: MutableMapping[str, str] = os.environ) -> None:
        self._address = environment.pop("NOTIFY_SOCKET", "")
        self._is_ready = False

    def loading(self) -> None:
        """Tell that the address is bound and the model being loaded."""
        self._tell("STATUS=loading the model")

    def ready(self) -> None:
        """Tell that the model is loaded."""
        self._is_ready = True
        self._tell("READY=1", "STATUS=serving")

    def reloading(self) -> None:
        """Tell that files are read again; `reloaded` must follow."""
        if self._is_ready:  # what is not ready yet must not say so afterwards
            self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def reloaded(self) -> None:
        """Tell that they have been."""
        if self._is_ready:
            self._tell("READY=1")

    def stopping(self) -> None:
        """Tell that the service ends, and that this may take a while."""
        self._tell("STOPPING=1", "STATUS=running requests end")

    def _tell(self, *lines: str) -> None:
        if not self._address:
            return
        # A name in the abstract namespace is written with an @ for its zero byte.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.settimeout(_NOTIFY_SECONDS)
                manager.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            _log.warning("systemd cannot be told %s: %s", lines[0], error)
