"""Text to values and back, as Go's ``strconv`` package does it.

The command line and the forms promise Go's spelling of numbers and booleans:
``0x10``, ``1_000``, ``010`` (octal), ``1e3``, ``0x1p-2``, ``T``.
"""

import math
import re

SYNTAX = "parse error"
RANGE = "value out of range"

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
_INT_DIGITS = 19

_INT = re.compile(
    r"([+-]?)(?:"
    r"0[xX](?P<hex>(?:_?[0-9a-fA-F])+)|0[bB](?P<bin>(?:_?[01])+)|0[oO](?P<oct>(?:_?[0-7])+)|"
    r"(?P<old_oct>0(?:_?[0-7])*)|(?P<dec>[1-9](?:_?[0-9])*))"
)
_BASES = {"hex": 16, "bin": 2, "oct": 8, "old_oct": 8, "dec": 10}
_DECIMALS = "[0-9](?:_?[0-9])*"
_HEX_DIGITS = "[0-9a-fA-F](?:_?[0-9a-fA-F])*"
_FLOAT = re.compile(
    rf"[+-]?(?:(?:{_DECIMALS}\.?(?:{_DECIMALS})?|\.{_DECIMALS})(?:[eE][+-]?{_DECIMALS})?|"
    rf"(?P<hex>0[xX](?:_?{_HEX_DIGITS}\.?(?:{_HEX_DIGITS})?|\.{_HEX_DIGITS})"
    rf"[pP][+-]?{_DECIMALS}))"
)
_SPECIAL_FLOAT = re.compile(r"[+-]?inf(?:inity)?|nan", re.IGNORECASE | re.ASCII)

_BOOLS = dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True) | dict.fromkeys(
    ("0", "f", "F", "FALSE", "false", "False"), False
)

_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    '"': '\\"',
}


def parse_int(text: str) -> int:
    """Read a signed 64-bit integer, as ``ParseInt(text, 0, 64)``.

    Raises ValueError with the text `SYNTAX` or `RANGE`.
    """
    match = _INT.fullmatch(text)
    if match is None:
        raise ValueError(SYNTAX)
    base_name = match.lastgroup or ""
    digits = match[base_name].replace("_", "")
    # Python refuses to read very long decimal numbers; these are out of range anyway.
    if base_name == "dec" and len(digits) > _INT_DIGITS:
        raise ValueError(RANGE)
    value = int(match[1] + digits, _BASES[base_name])
    if not INT_MIN <= value <= INT_MAX:
        raise ValueError(RANGE)
    return value


def parse_float(text: str) -> float:
    """Read a float, as ``ParseFloat(text, 64)``; infinities and NaN are numbers here.

    Raises ValueError with the text `SYNTAX` or `RANGE`.
    """
    if _SPECIAL_FLOAT.fullmatch(text):
        return float(text)
    match = _FLOAT.fullmatch(text)
    if match is None:
        raise ValueError(SYNTAX)
    try:
        value = float.fromhex(text.replace("_", "")) if match["hex"] else float(text)
    except OverflowError:
        raise ValueError(RANGE) from None
    if math.isinf(value):
        raise ValueError(RANGE)
    return value


def parse_bool(text: str) -> bool:
    """Read a boolean, as ``ParseBool``. Raises ValueError with the text `SYNTAX`."""
    try:
        return _BOOLS[text]
    except KeyError:
        raise ValueError(SYNTAX) from None


def quote(text: str) -> str:
    """Write `text` as a Go string literal, as the verb ``%q`` does."""
    return '"' + "".join(_quote_char(char) for char in text) + '"'


def _quote_char(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of an argument that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x20 or code == 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
