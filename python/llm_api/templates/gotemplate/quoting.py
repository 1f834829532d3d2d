"""Escapers: Go string literals, HTML, JavaScript, URL queries and JSON strings.

Each goes through its text character by character, or byte by byte, and what it writes for a
character of a client is a client's.
"""

import re
from collections.abc import Callable

from llm_api.templates.gotemplate.limits import Budget
from llm_api.templates.gotemplate.text import Text, TextBuilder, decode, encode

__all__ = [
    "can_backquote",
    "escape_html",
    "escape_js",
    "escape_url",
    "is_printable",
    "quote",
    "quote_char",
    "quote_json",
]

_NAMED = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
}
_HTML = {
    "\0": "\ufffd",
    '"': "&#34;",
    "'": "&#39;",
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
}
_JS = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E"} | {
    "&": "\\u0026",
    "=": "\\u003D",
}
_JSON = {"\\": "\\\\", '"': '\\"', "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r"} | {
    "\t": "\\t"
}
_URL_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")
_CONTROL = re.compile("[\x00-\x08\x0a-\x1f\x7f`\ufeff\udc80-\udcff]")

# What Unicode 15, which Go has, adds to Unicode 14, which Python 3.11 has.
_UNICODE_15 = re.compile(
    "[\u0cf3\u0ece\U00010efd-\U00010eff\U0001123f-\U00011241\U00011b00-\U00011b09"
    "\U00011f00-\U00011f10\U00011f12-\U00011f3a\U00011f3e-\U00011f59\U0001342f"
    "\U00013440-\U00013455\U0001b132\U0001b155\U0001d2c0-\U0001d2d3\U0001df25-\U0001df2a"
    "\U0001e030-\U0001e06d\U0001e08f\U0001e4d0-\U0001e4f9\U0001f6dc\U0001f774-\U0001f776"
    "\U0001f77b-\U0001f77f\U0001f7d9\U0001fa75-\U0001fa77\U0001fa87-\U0001fa88"
    "\U0001faad-\U0001faaf\U0001fabb-\U0001fabd\U0001fabf\U0001face-\U0001facf"
    "\U0001fada-\U0001fadb\U0001fae8\U0001faf7-\U0001faf8\U0002b739\U00031350-\U000323af]"
)

# A step for each eight bytes.
_STEPS_SHIFT = 3


def _map(text: Text, budget: Budget, escape: Callable[[str], str]) -> Text:
    budget.spend(len(text) >> _STEPS_SHIFT)
    builder = TextBuilder(budget)
    for raw, is_data in text.runs():
        builder.literal("".join(map(escape, decode(raw))), is_data)
    return builder.build()


def is_printable(char: str) -> bool:
    """Whether a character is a letter, a mark, a number, a sign or a plain space."""
    return char.isprintable() or _UNICODE_15.match(char) is not None


def _is_stray(char: str) -> bool:
    """Whether a character stands for a byte that is part of none."""
    return "\udc80" <= char <= "\udcff"


def _escape_rune(char: str, quote: str, ascii_only: bool) -> str:
    if char in (quote, "\\"):
        return "\\" + char
    if is_printable(char) and (char.isascii() or not ascii_only):
        return char
    if char in _NAMED:
        return _NAMED[char]
    code = ord(char)
    if _is_stray(char):
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quote_char(char: str, ascii_only: bool = False) -> str:
    """Write a character as a Go character constant."""
    return f"'{_escape_rune(char, chr(39), ascii_only)}'"


def quote(text: Text, budget: Budget, ascii_only: bool = False) -> Text:
    """Write a text as a Go string literal; the quotation marks are trusted."""
    body = _map(text, budget, lambda char: _escape_rune(char, '"', ascii_only))
    return Text(b'"%b"' % body.raw, b"\x00%b\x00" % body.mask)


def can_backquote(text: Text) -> bool:
    """Whether a text can stand unchanged between backquotes."""
    return _CONTROL.search(decode(text.raw)) is None


def escape_html(text: Text, budget: Budget) -> Text:
    """Escape what has a meaning in HTML."""
    return _map(text, budget, lambda char: _HTML.get(char, char))


def _js(char: str) -> str:
    if char in _JS:
        return _JS[char]
    if " " <= char <= "\x7f" or is_printable(char) or _is_stray(char):
        return char
    return f"\\u{ord(char):04X}"


def escape_js(text: Text, budget: Budget) -> Text:
    """Escape what has a meaning in a JavaScript string."""
    return _map(text, budget, _js)


def _url(char: str) -> str:
    if char in _URL_SAFE:
        return char
    if char == " ":
        return "+"
    return "".join(f"%{byte:02X}" for byte in encode(char))


def escape_url(text: Text, budget: Budget) -> Text:
    """Escape a text for the query of a URL."""
    return _map(text, budget, _url)


def _json(char: str) -> str:
    if char in _JSON:
        return _JSON[char]
    if _is_stray(char):
        return "\\ufffd"
    if char < " " or char in "<>&\u2028\u2029":
        return f"\\u{ord(char):04x}"
    return char


def quote_json(text: Text, budget: Budget) -> Text:
    """Write a text as a JSON string, as Go does: fit for HTML."""
    body = _map(text, budget, _json)
    return Text(b'"%b"' % body.raw, b"\x00%b\x00" % body.mask)
