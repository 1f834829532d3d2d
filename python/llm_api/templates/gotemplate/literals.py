"""Go's literals: quoted strings, characters and numbers."""

import re

from llm_api.strconv import parse_float, parse_int

__all__ = ["parse_char", "parse_complex", "parse_number", "unquote"]

_HEX = "[0-9a-fA-F]"
_ESCAPE = re.compile(
    rf"\\(?:(?P<name>[abfnrtv\\'\"])|x(?P<hex>{_HEX}{{2}})|(?P<octal>[0-7]{{3}})"
    rf"|u(?P<short>{_HEX}{{4}})|U(?P<long>{_HEX}{{8}}))"
)
_NAMED = dict(zip("abfnrtv\\'\"", "\a\b\f\n\r\t\v\\'\"", strict=True))
_SYNTAX = "invalid syntax"

_UINT64_MAX = (1 << 64) - 1
_OLD_OCTAL = re.compile(r"0(?:_?[0-7])+")
_COMPLEX = re.compile(
    r"(?P<real>[+-]?(?:[^+-]|(?<=[eEpP])[+-])+)(?P<imaginary>[+-](?:[^+-]|(?<=[eEpP])[+-])+)i"
)


def _escape(source: str, position: int, quote: str) -> tuple[int | str, int]:
    """Read an escape; return a byte or a character, and the position after it."""
    match = _ESCAPE.match(source, position)
    if match is None:
        raise ValueError(_SYNTAX)
    value: int | str
    if name := match["name"]:
        if name in "'\"" and name != quote:
            raise ValueError(_SYNTAX)
        value = _NAMED[name]
    elif digits := match["hex"]:
        value = int(digits, 16)
    elif digits := match["octal"]:
        value = int(digits, 8)
        if value > 0xFF:
            raise ValueError(_SYNTAX)
    else:
        code = int(match["short"] or match["long"], 16)
        if code > 0x10FFFF or 0xD800 <= code < 0xE000:
            raise ValueError(_SYNTAX)
        value = chr(code)
    return value, match.end()


def unquote(literal: str) -> bytes:
    """Return the bytes that a quoted string stands for; ValueError if it is malformed."""
    quote, body = literal[0], literal[1:-1]
    if quote == "`":
        return body.replace("\r", "").encode()
    parts: list[bytes] = []
    start = 0
    while (end := body.find("\\", start)) >= 0:
        parts.append(body[start:end].encode())
        value, start = _escape(body, end, quote)
        parts.append(bytes([value]) if isinstance(value, int) else value.encode())
    parts.append(body[start:].encode())
    return b"".join(parts)


def parse_char(literal: str) -> int:
    """Return the code of a character constant; ValueError if it is malformed."""
    value: int | str
    if literal[1] == "'":
        raise ValueError(_SYNTAX)
    if literal[1] == "\\":
        value, end = _escape(literal, 1, "'")
    else:
        value, end = literal[1], 2
    if literal[end:] != "'":
        raise ValueError(f"malformed character constant: {literal}")
    return value if isinstance(value, int) else ord(value)


def parse_number(literal: str) -> int | float | complex:
    """Return the value of a number; ValueError if it is malformed or out of range.

    An integer may be as large as an unsigned 64-bit one.
    """
    if literal.endswith("i"):
        try:
            return complex(0, parse_float(literal[:-1]))
        except ValueError:
            raise ValueError(f'illegal number syntax: "{literal}"') from None
    if (value := _integer(literal)) is not None:
        return value
    try:
        number = parse_float(literal)
    except ValueError:
        raise ValueError(f'illegal number syntax: "{literal}"') from None
    if not any(char in ".eEpP" for char in literal):
        raise ValueError(f'integer overflow: "{literal}"')
    return number


def _integer(literal: str) -> int | None:
    try:
        return parse_int(literal)
    except ValueError:
        pass
    if _OLD_OCTAL.fullmatch(literal):
        literal = "0o" + literal[1:]
    try:
        value = int(literal, 0)
    except ValueError:
        return None
    return value if literal[0].isdigit() and value <= _UINT64_MAX else None


def parse_complex(literal: str) -> complex:
    """Return the value of a number such as `1+2i`; ValueError if it is malformed."""
    match = _COMPLEX.fullmatch(literal)
    if match is None:
        raise ValueError("syntax error scanning complex number")
    return complex(parse_float(match["real"]), parse_float(match["imaginary"]))
