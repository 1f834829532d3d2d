"""Text that remembers, character by character, whether the template wrote it.

Jinja concatenates, trims, slices and filters strings freely, and chat templates write their
control tokens in expressions such as `'<|im_start|>' + message['role']`.  So provenance has to
travel with the characters.  `Tracked` is a str that carries a mask.  The rule that keeps it sound:
only a Tracked holds trusted characters, and text of any other type is data.  An operation that is
not overridden here returns a plain str, and so loses trust and never gains it.
"""

from collections.abc import Iterable, Iterator
from typing import Self, SupportsIndex

from llm_api.prompt import Span

__all__ = [
    "ELEMENT_SIZE",
    "MAX_LENGTH",
    "LimitError",
    "Tracked",
    "check_length",
    "concat",
    "data",
    "trusted",
]

MAX_LENGTH = 1 << 24
"""The most characters one string may have; a longer one is refused before it is made."""

ELEMENT_SIZE = 16
"""How many characters an element of a list or dict counts for."""

_TRUSTED, _DATA = b"\x00", b"\x01"


class LimitError(Exception):
    """A template asks for more text or more work than it may have."""


def check_length(length: int) -> None:
    """Raise LimitError if a string of so many characters is too long."""
    if length > MAX_LENGTH:
        raise LimitError(f"the template makes a text of more than {MAX_LENGTH} characters")


class Tracked(str):
    """A string and its mask: one byte a character, 1 where it is a client's, else 0."""

    __slots__ = ("mask",)
    mask: bytes

    def __new__(cls, text: str, mask: bytes) -> Self:
        """Make the string; the mask must be as long as the text."""
        self = super().__new__(cls, text)
        self.mask = mask
        return self

    @property
    def is_trusted(self) -> bool:
        """Whether no character is data."""
        return _DATA not in self.mask

    def spans(self) -> Iterator[Span]:
        """Cut the text where its provenance changes."""
        start = 0
        while start < len(self):
            is_data = bool(self.mask[start])
            end = self.mask.find(_TRUSTED if is_data else _DATA, start)
            end = len(self) if end < 0 else end
            yield Span(super().__getitem__(slice(start, end)), is_data)
            start = end

    def __str__(self) -> str:
        # Jinja wraps what it writes in str(), which must not drop the mask.
        return self

    def __add__(self, other: str) -> "Tracked":
        return concat((self, other))

    def __radd__(self, other: str) -> "Tracked":
        return concat((other, self))

    def __mul__(self, count: SupportsIndex) -> "Tracked":
        return Tracked(super().__mul__(count), self.mask * count.__index__())

    __rmul__ = __mul__

    def __getitem__(self, key: SupportsIndex | slice) -> "Tracked":
        text = super().__getitem__(key)
        if isinstance(key, slice):
            return Tracked(text, self.mask[key])
        return Tracked(text, self.mask[key.__index__() :][:1])

    def join(self, parts: Iterable[str]) -> "Tracked":
        """Join the parts with this text between them."""
        pieces: list[str] = []
        for part in parts:
            pieces += (self, part) if pieces else (part,)
        return concat(pieces)

    def replace(self, old: str, new: str, count: SupportsIndex = -1) -> "Tracked":
        """Replace the first `count` occurrences of `old`, or all."""
        found = self.count(old)
        limit = count.__index__()
        times = found if limit < 0 else min(found, limit)
        if times == 0:
            return self
        check_length(len(self) + times * (len(new) - len(old)))
        if old:
            pieces = self.split(old, times)
        else:  # an empty text is found before each character and at the end
            pieces = ["", *(self[i : i + 1] for i in range(times - 1)), self[times - 1 :]]
        return Tracked(new, getattr(new, "mask", _DATA * len(new))).join(pieces)

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        """Split at `sep`, or at runs of white space."""
        return self._locate(super().split(sep, maxsplit), len(sep or ""))

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        """Split at `sep`, or at runs of white space, from the end."""
        return self._locate(super().rsplit(sep, maxsplit), len(sep or ""))

    def splitlines(self, keepends: bool = False) -> list[str]:
        """Split at the ends of lines."""
        return self._locate(super().splitlines(keepends), 0)

    def _locate(self, parts: list[str], gap: int) -> list[str]:
        """Give parts, which stand in this text in this order, their masks.

        Between two parts are `gap` characters or, where that is 0, characters no part begins with.
        """
        check_length(len(parts) * ELEMENT_SIZE)
        if _TRUSTED not in self.mask:
            return parts  # as plain strings they are data, and cost much less
        located: list[str] = []
        end = -gap
        for part in parts:
            start = self.find(part, end + gap)
            end = start + len(part)
            located.append(self[start:end])
        return located

    def partition(self, sep: str) -> tuple[str, str, str]:
        """Split in three at the first `sep`."""
        start = len(super().partition(sep)[0])
        end = start + len(sep)
        return self[:start], self[start:end], self[end:]

    def rpartition(self, sep: str) -> tuple[str, str, str]:
        """Split in three at the last `sep`."""
        end = len(self) - len(super().rpartition(sep)[2])
        start = max(end - len(sep), 0)
        return self[:start], self[start:end], self[end:]

    def strip(self, chars: str | None = None) -> "Tracked":
        """Drop white space, or any of `chars`, at both ends."""
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars: str | None = None) -> "Tracked":
        """Drop white space, or any of `chars`, at the beginning."""
        return self[len(self) - len(super().lstrip(chars)) :]

    def rstrip(self, chars: str | None = None) -> "Tracked":
        """Drop white space, or any of `chars`, at the end."""
        return self[: len(super().rstrip(chars))]

    def removeprefix(self, prefix: str, /) -> "Tracked":
        """Drop `prefix` at the beginning."""
        return self[len(prefix) :] if self.startswith(prefix) else self

    def removesuffix(self, suffix: str, /) -> "Tracked":
        """Drop `suffix` at the end."""
        return self[: len(self) - len(suffix)] if self.endswith(suffix) else self

    def upper(self) -> "Tracked":
        """Turn all letters to upper case."""
        return self._mapped(super().upper())

    def lower(self) -> "Tracked":
        """Turn all letters to lower case."""
        return self._mapped(super().lower())

    def title(self) -> "Tracked":
        """Turn the first letter of each word to upper case, the others to lower case."""
        return self._mapped(super().title())

    def capitalize(self) -> "Tracked":
        """Turn the first letter to upper case, the others to lower case."""
        return self._mapped(super().capitalize())

    def _mapped(self, text: str) -> "Tracked":
        # A letter may become several but never none, so equal lengths mean equal places.
        return Tracked(text, self.mask) if len(text) == len(self) else data(text)


def trusted(text: str) -> Tracked:
    """Mark text as the template's own."""
    return Tracked(text, _TRUSTED * len(text))


def data(text: str) -> Tracked:
    """Mark text as written by a client."""
    return Tracked(text, _DATA * len(text))


def concat(parts: Iterable[str]) -> Tracked:
    """Join the parts; those that aren't Tracked are data."""
    parts = list(parts)
    check_length(sum(map(len, parts)))
    masks = (part.mask if isinstance(part, Tracked) else _DATA * len(part) for part in parts)
    return Tracked("".join(parts), b"".join(masks))
