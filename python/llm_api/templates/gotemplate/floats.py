"""Floats to text, as Go's ``strconv.FormatFloat`` does it for 64 bits."""

import math
import struct

__all__ = ["format_float"]

_MANTISSA_BITS = 52
_BIAS = 1023
# No float has more significant decimal digits; what follows them is zeros.
_MAX_DIGITS = 800


def format_float(value: float, form: str, precision: int = -1) -> str:
    """Write a float in one of the forms b, e, E, f, g, G, x and X.

    A negative precision asks for the fewest digits that tell the value from its neighbours.
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "-Inf" if value < 0 else "+Inf"
    sign = "-" if math.copysign(1, value) < 0 else ""
    value = abs(value)
    match form:
        case "b":
            text = _binary(value)
        case "x" | "X":
            text = _hexadecimal(value, precision)
        case "f" if precision >= 0:
            text = f"{value:.{precision}f}"
        case "e" | "E" if precision >= 0:
            text = f"{value:.{precision}e}"
        case "f":
            digits, point = _shortest(value)
            text = _plain(digits, point, max(len(digits) - point, 0))
        case "e" | "E":
            digits, point = _shortest(value)
            text = _exponential(digits, point)
        case _:
            text = _general(value, precision)
    return sign + (text.upper() if form in "EGX" else text)


def _split(exponential: str) -> tuple[str, int]:
    """Return the digits of `d.ddde±xx`, and the place of the point counted from their start."""
    mantissa, _, exponent = exponential.partition("e")
    digits = mantissa.replace(".", "").rstrip("0")
    return (digits, int(exponent) + 1) if digits else ("", 0)


def _shortest(value: float) -> tuple[str, int]:
    # repr gives the fewest digits, in either notation.
    text = repr(value)
    digits = len(text.partition("e")[0].replace(".", "").strip("0"))
    return _split(f"{value:.{max(digits - 1, 0)}e}")


def _plain(digits: str, point: int, precision: int) -> str:
    whole = digits[: max(point, 0)].ljust(point, "0") or "0"
    if precision <= 0:
        return whole
    fraction = ("0" * -point + digits)[:precision] if point < 0 else digits[point:][:precision]
    return f"{whole}.{fraction.ljust(precision, '0')}"


def _exponential(digits: str, point: int) -> str:
    exponent = point - 1 if digits else 0
    fraction = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[:1] or '0'}{fraction}e{'-' if exponent < 0 else '+'}{abs(exponent):02d}"


def _general(value: float, precision: int) -> str:
    if precision < 0:
        digits, point = _shortest(value)
        most = 6
        precision = len(digits)
    else:
        precision = max(precision, 1)
        digits, point = _split(f"{value:.{min(precision, _MAX_DIGITS) - 1}e}")
        most = precision
        if most > len(digits) >= point:
            most = len(digits)
    if not -4 <= point - 1 < most:
        return _exponential(digits, point)
    return _plain(digits, point, max(len(digits) - point, 0))


def _parts(value: float) -> tuple[int, int]:
    """Return an integer mantissa and the exponent of its unit's 2**52 multiple."""
    bits = struct.unpack(">Q", struct.pack(">d", value))[0]
    exponent, mantissa = bits >> _MANTISSA_BITS, bits & ((1 << _MANTISSA_BITS) - 1)
    if exponent == 0:
        return mantissa, 1 - _BIAS
    return mantissa | 1 << _MANTISSA_BITS, exponent - _BIAS


def _binary(value: float) -> str:
    mantissa, exponent = _parts(value)
    return f"{mantissa}p{exponent - _MANTISSA_BITS:+d}"


def _hexadecimal(value: float, precision: int) -> str:
    mantissa, exponent = _parts(value)
    if mantissa == 0:
        exponent = 0
    # One bit before the point, 60 bits after it.
    mantissa <<= 60 - _MANTISSA_BITS
    while mantissa and not mantissa >> 60:
        mantissa <<= 1
        exponent -= 1
    if 0 <= precision < 15:
        shift = 60 - 4 * precision
        rest = mantissa & ((1 << shift) - 1)
        mantissa >>= shift
        half = 1 << shift >> 1
        if rest > half or (rest == half and mantissa & 1):
            mantissa += 1
        mantissa <<= shift
        if mantissa >> 61:
            mantissa >>= 1
            exponent += 1
    fraction = f"{mantissa & ((1 << 60) - 1):015x}"
    fraction = fraction.rstrip("0") if precision < 0 else fraction[:precision].ljust(precision, "0")
    point = "." if fraction else ""
    return f"0x{mantissa >> 60}{point}{fraction}p{exponent:+03d}"
