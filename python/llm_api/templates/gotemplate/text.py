"""Strings of the template language: bytes that remember who wrote them.

Go strings are bytes to `len`, `index` and `slice`.  Beside its bytes a `Text` holds a mask that
tells for each byte whether the template's author wrote it or a client did.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from llm_api.templates.gotemplate.limits import Budget, ExecError

__all__ = ["Stretch", "Text", "TextBuilder", "decode", "encode", "rune_count"]

_TRUSTED, _DATA = b"\x00", b"\x01"


def decode(raw: bytes) -> str:
    """Decode UTF-8; each byte that is no part of a character becomes a surrogate U+DC80…DCFF."""
    return raw.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """Undo `decode`; surrogates of another origin become U+FFFD, as in Go's JSON reader."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text).encode()


def rune_count(raw: bytes) -> int:
    """Count characters; each byte that is no part of one counts as one."""
    return len(decode(raw))


def _continues(byte: int) -> bool:
    """Whether a byte is one of a character's, but not the first."""
    return byte & 0xC0 == 0x80


class Stretch(NamedTuple):
    """A piece of the output, and whether it comes from a client."""

    text: str
    is_data: bool


@dataclass(frozen=True, slots=True)
class Text:
    """A string; `mask` has a byte for each of its bytes, 1 where it is a client's."""

    raw: bytes
    mask: bytes = field(compare=False)

    @classmethod
    def trusted(cls, text: str | bytes) -> "Text":
        """Make a text of the template's author, or of this program."""
        raw = text if isinstance(text, bytes) else encode(text)
        return cls(raw, _TRUSTED * len(raw))

    @classmethod
    def data(cls, text: str | bytes) -> "Text":
        """Make a text of a client."""
        raw = text if isinstance(text, bytes) else encode(text)
        return cls(raw, _DATA * len(raw))

    @classmethod
    def of(cls, text: str | bytes, is_data: bool) -> "Text":
        """Make a text of the kind named by `is_data`."""
        return cls.data(text) if is_data else cls.trusted(text)

    def __len__(self) -> int:
        return len(self.raw)

    @property
    def has_data(self) -> bool:
        """Whether any of it is a client's."""
        return _DATA in self.mask

    def cut(self, start: int, end: int) -> "Text":
        """Return the bytes from `start` up to `end`."""
        return Text(self.raw[start:end], self.mask[start:end])

    def runs(self) -> Iterator[tuple[bytes, bool]]:
        """Cut the bytes where their provenance changes.

        No character is cut in two: one that both have a part in is a client's.
        """
        raw, mask = self.raw, bytearray(self.mask)
        start = 0
        while start < len(raw):
            is_data = bool(mask[start])
            end = mask.find(_TRUSTED if is_data else _DATA, start)
            end = len(raw) if end < 0 else end
            if is_data:
                while end < len(raw) and _continues(raw[end]):
                    end += 1
            else:
                while start < end < len(raw) and _continues(raw[end]):
                    end -= 1
                    mask[end] = 1
            if end > start:
                yield raw[start:end], is_data
            start = end

    def stretches(self) -> list[Stretch]:
        """Return the runs as text; what isn't UTF-8 becomes U+FFFD."""
        return [Stretch(raw.decode("utf-8", "replace"), is_data) for raw, is_data in self.runs()]


class TextBuilder:
    """Puts a text together, within a budget and a bound."""

    __slots__ = ("_budget", "_masks", "_raws", "_room")

    def __init__(self, budget: Budget, room: int | None = None) -> None:
        self._budget = budget
        self._room = room
        self._raws: list[bytes] = []
        self._masks: list[bytes] = []

    def write(self, text: Text) -> None:
        """Append a text."""
        self._budget.allocate(len(text.raw))
        if self._room is not None:
            self._room -= len(text.raw)
            if self._room < 0:
                raise ExecError("the output is too long")
        self._raws.append(text.raw)
        self._masks.append(text.mask)

    def literal(self, text: str | bytes, is_data: bool = False) -> None:
        """Append a text of one kind."""
        self.write(Text.of(text, is_data))

    def build(self) -> Text:
        """Return what was written."""
        return Text(b"".join(self._raws), b"".join(self._masks))
