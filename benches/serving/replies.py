"""What the load client has collected, read as HTTP/1.1: pieces of a body and when they came."""

from dataclasses import dataclass

from serving.load import Seen


class BrokenReplyError(Exception):
    """A reply that is not whole, or refuses; the text says which."""


@dataclass
class Body:
    """A whole reply."""

    status: int
    headers: dict[str, str]
    pieces: list[tuple[float, bytes]]
    """Seconds since the plan began, and the bytes of the body that came then."""
    is_whole: bool = True
    """Whether the end came."""


def read_body(seen: Seen, *, cut: bool = False) -> Body:
    """Take the head and the chunks apart; with `cut`, the end may be missing.

    Raises BrokenReplyError for a reply that is not whole or has another status than 200.
    """
    reader = _Reader(seen.reads)
    head = reader.until(b"\r\n\r\n")
    if head is None:
        if cut:
            return Body(200, {}, [], is_whole=False)
        raise BrokenReplyError(f"no head: {seen.error or 'the connection closed'}")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if line)
    status = int(status_line.split(" ")[1])
    pieces, is_whole = _pieces(reader, headers)
    if status != 200:
        text = b"".join(data for _, data in pieces)
        raise BrokenReplyError(f"status {status}: {text[:200].decode(errors='replace')}")
    if not is_whole and not cut:
        raise BrokenReplyError(f"not whole: {seen.error or 'the connection closed'}")
    return Body(status, headers, pieces, is_whole)


def _pieces(reader: "_Reader", headers: dict[str, str]) -> tuple[list[tuple[float, bytes]], bool]:
    pieces: list[tuple[float, bytes]] = []
    if headers.get("transfer-encoding") != "chunked":
        length = int(headers.get("content-length", "0"))
        body = reader.exactly(length)
        return ([(reader.time, body)], True) if body is not None else ([], False)
    while (size := reader.until(b"\r\n")) is not None:
        chunk = reader.exactly(int(size, 16) + 2)
        if chunk is None:
            break
        if len(chunk) == 2:
            return pieces, True
        pieces.append((reader.time, chunk[:-2]))
    return pieces, False


class _Reader:
    """Reads on in what came; `time` is when the last byte that was read had come."""

    def __init__(self, reads: list[tuple[float, str]]) -> None:
        self.time = 0.0
        self._reads = iter(reads)
        self._rest = bytearray()

    def until(self, mark: bytes) -> bytes | None:
        """Read up to a mark and leave it out; None if it never came."""
        while (at := self._rest.find(mark)) < 0:
            if not self._more():
                return None
        found = bytes(self._rest[:at])
        del self._rest[: at + len(mark)]
        return found

    def exactly(self, size: int) -> bytes | None:
        """Read so many bytes; None if they never came."""
        while len(self._rest) < size:
            if not self._more():
                return None
        data = bytes(self._rest[:size])
        del self._rest[:size]
        return data

    def _more(self) -> bool:
        read = next(self._reads, None)
        if read is None:
            return False
        self.time, data = read
        self._rest += data.encode("latin-1")
        return True
