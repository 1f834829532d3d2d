"""A stand-in for systemd: hands sockets over, and reads what is told."""

from __future__ import annotations

import configparser
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from .scripted import SECONDS

CONTRIB = Path(__file__).parents[2] / "contrib"

_ACTIVATE = """
import fcntl, os, sys
count, names, notify, *rest = sys.argv[1:]
fds, command = rest[: int(count)], rest[int(count) :]
high = [fcntl.fcntl(int(fd), fcntl.F_DUPFD_CLOEXEC, 100) for fd in fds]
os.closerange(3, 100)
for number, fd in enumerate(high, 3):
    os.dup2(fd, number)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count, "LISTEN_FDNAMES": names}
if notify:
    os.environ["NOTIFY_SOCKET"] = notify
os.execvp(command[0], command)
"""


def activate(
    sockets: Sequence[socket.socket], names: Sequence[str] = (), notify: str = ""
) -> list[str]:
    """Begin a command line that hands sockets to the rest of it; run it with open descriptors."""
    for handed in sockets:
        handed.set_inheritable(True)
    numbers = [str(handed.fileno()) for handed in sockets]
    head = [sys.executable, "-c", _ACTIVATE, str(len(numbers)), ":".join(names), notify]
    return [*head, *numbers]


class Manager:
    """Hears what a service tells."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(SECONDS)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def next(self, seconds: float = SECONDS) -> dict[str, str]:
        """Wait for the next message."""
        self._socket.settimeout(seconds)
        lines = self._socket.recv(4096).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def close(self) -> None:
        self._socket.close()


def read_unit(name: str) -> configparser.ConfigParser:
    """Read one of our unit files; of settings that are given twice, the last one."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string((CONTRIB / name).read_text())
    return unit
