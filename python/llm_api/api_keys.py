"""The keys that clients must show, if any are asked for."""

import hmac
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

__all__ = ["ApiKeyError", "ApiKeys"]

_FILE_BYTES: Final = 1 << 20


class ApiKeyError(Exception):
    """Keys that cannot be used; the text says which and why, and never holds one."""


class ApiKeys:
    """Knows the keys of the command line and of a file, which can be read again.

    Only their SHA-256 is kept: nothing that prints or logs this object can tell a key, and all
    comparisons are of one length.
    """

    def __init__(self, given: Iterable[str] = (), path: str = "") -> None:
        """Take these keys and those of the file at `path`, if there is one. Raises ApiKeyError."""
        self._given = [
            _digest(key, f"api-key, number {number}") for number, key in enumerate(given, 1)
        ]
        self._path = path
        self._from_file: list[bytes] = []
        self.reload()

    def __len__(self) -> int:
        """Count the keys."""
        return len(self._given) + len(self._from_file)

    @property
    def can_reload(self) -> bool:
        """Whether there is a file."""
        return bool(self._path)

    def reload(self) -> None:
        """Read the file again. Raises ApiKeyError, and then the keys stay as they are."""
        if self._path:
            self._from_file = _read(self._path)

    def accepts(self, text: str) -> bool:
        """Tell whether this is one of the keys, in a time that does not depend on which."""
        shown = sha256(text.encode("utf-8", "surrogatepass")).digest()
        is_known = False
        for key in (*self._given, *self._from_file):
            is_known |= hmac.compare_digest(shown, key)
        return is_known


def _read(path: str) -> list[bytes]:
    where = f"api-key-file {path}"
    try:
        with open(path, "rb") as file:
            data = file.read(_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ApiKeyError(f"{where}: cannot be read: {reason}") from error
    if len(data) > _FILE_BYTES:
        raise ApiKeyError(f"{where}: is larger than {_FILE_BYTES} bytes")
    keys = []
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        key = line.strip()
        if key and not key.startswith("#"):
            keys.append(_digest(key, f"{where}, line {number}"))
    if not keys:
        raise ApiKeyError(f"{where}: holds no key; write one a line")
    return keys


def _digest(key: str, where: str) -> bytes:
    if not key:
        raise ApiKeyError(f"{where}: the key is empty")
    if any(char.isspace() for char in key):
        raise ApiKeyError(f"{where}: the key has white space in it")
    if not (key.isascii() and key.isprintable()):
        raise ApiKeyError(f"{where}: the key must be of printable ASCII characters")
    return sha256(key.encode()).digest()
