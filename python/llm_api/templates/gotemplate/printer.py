"""Values to text, as Go's ``fmt`` package writes them for one verb and its flags."""

from dataclasses import dataclass

from llm_api.templates.gotemplate.floats import format_float
from llm_api.templates.gotemplate.limits import MAX_VALUE_DEPTH, Budget, ExecError
from llm_api.templates.gotemplate.quoting import can_backquote, is_printable, quote, quote_char
from llm_api.templates.gotemplate.text import Text, TextBuilder, decode, rune_count
from llm_api.templates.gotemplate.values import (
    INVALID,
    GoStruct,
    Map,
    Slice,
    Uint8,
    Value,
    type_name,
    wrap,
)

__all__ = ["Flags", "Printer"]

_BASES = {"v": "d", "d": "d", "b": "b", "o": "o", "O": "o", "x": "x", "X": "X"}
_FLOAT_FORMS = {"v": ("g", -1), "F": ("f", 6)} | {
    **{verb: (verb, -1) for verb in "bgGxX"},
    **{verb: (verb, 6) for verb in "feE"},
}
# Go prints an address; there is none.
_ADDRESS = 0xC000010000


@dataclass(slots=True)
class Flags:
    """What stands between `%` and the verb; `plus_v` and `sharp_v` are those of `%+v` and `%#v`."""

    width: int | None = None
    precision: int | None = None
    minus: bool = False
    plus: bool = False
    sharp: bool = False
    space: bool = False
    zero: bool = False
    plus_v: bool = False
    sharp_v: bool = False


class Printer:
    """Writes values to a text."""

    def __init__(self, budget: Budget) -> None:
        self.flags = Flags()
        self._budget = budget
        self._out = TextBuilder(budget)

    def build(self) -> Text:
        """Return what was written."""
        return self._out.build()

    def write(self, text: Text) -> None:
        """Write a text as it is."""
        self._out.write(text)

    def literal(self, text: str) -> None:
        """Write a text of this program's own."""
        self._out.literal(text)

    def value(self, value: Value, verb: str, depth: int = 0) -> None:
        """Write a value for a verb; what doesn't fit the verb is written as an error marker."""
        self._budget.spend()
        if depth > MAX_VALUE_DEPTH:
            raise ExecError("the value to print is nested too deeply")
        if value is INVALID:
            value = None
        if value is None:
            self._nil(verb, depth)
        elif verb == "T" and depth == 0:
            self._string(Text.trusted(type_name(value)), "s")
        elif verb == "p" and depth == 0:
            self._pointer(value)
        elif verb == "w" and isinstance(value, Slice | Map | GoStruct):
            self.bad_verb(value, verb)
        else:
            self._by_type(value, verb, depth)

    def marker(self, verb: str, reason: str) -> None:
        """Write the error marker for a verb without a value."""
        self.literal(f"%!{_verb_text(verb)}({reason})")

    def bad_verb(self, value: Value, verb: str) -> None:
        """Write the error marker for a value that a verb can't write."""
        self.literal(f"%!{_verb_text(verb)}(")
        if value is None:
            self.literal("<nil>")
        else:
            self.literal(f"{type_name(value)}=")
            self.value(value, "v")
        self.literal(")")

    def _nil(self, verb: str, depth: int) -> None:
        if depth > 0:
            self.literal("interface {}(nil)" if self.flags.sharp_v else "<nil>")
        elif verb in "Tv":
            self._pad(Text.trusted("<nil>"))
        else:
            self.bad_verb(None, verb)

    def _by_type(self, value: Value, verb: str, depth: int) -> None:
        match value:
            case bool():
                if verb in "tv":
                    self._pad(Text.trusted("true" if value else "false"))
                else:
                    self.bad_verb(value, verb)
            case int():
                self._integer(value, verb)
            case float():
                self._float(value, verb)
            case complex():
                self._complex(value, verb)
            case Text():
                self._string(value, verb)
            case Slice():
                self._slice(value, verb, depth)
            case Map():
                self._map(value, verb, depth)
            case GoStruct():
                self._struct(value, verb, depth)

    # Padding.

    def _padding(self, count: int) -> bytes:
        if count <= 0:
            return b""
        self._budget.allocate(count)
        return (b"0" if self.flags.zero and not self.flags.minus else b" ") * count

    def _pad(self, text: Text) -> None:
        """Write a text, padded to the width."""
        padding = b""
        if self.flags.width:
            padding = self._padding(self.flags.width - rune_count(text.raw))
        if self.flags.minus:
            self.write(text)
        self._out.literal(padding)
        if not self.flags.minus:
            self.write(text)

    def _pad_with_spaces(self, text: Text) -> None:
        zero, self.flags.zero = self.flags.zero, False
        self._pad(text)
        self.flags.zero = zero

    # Numbers.

    def _integer(self, value: int, verb: str) -> None:
        is_data = isinstance(value, Uint8) and value.is_data
        if verb in _BASES:
            base = _BASES[verb]
            sharp = self.flags.sharp
            if verb == "v" and self.flags.sharp_v and isinstance(value, Uint8):
                base, sharp = "x", True
            self._in_base(int(value), base, sharp, verb == "O", is_data)
        elif verb in "cq":
            char = chr(value) if 0 <= value <= 0x10FFFF else "\ufffd"
            char = "\ufffd" if "\ud800" <= char <= "\udfff" else char
            text = char if verb == "c" else quote_char(char, self.flags.plus)
            self._pad(Text.of(text, is_data))
        elif verb == "U":
            self._unicode(value % (1 << 64), is_data)
        else:
            self.bad_verb(value, verb)

    def _in_base(self, value: int, base: str, sharp: bool, octal_mark: bool, is_data: bool) -> None:
        flags = self.flags
        precision = flags.precision
        if precision == 0 and value == 0:
            if flags.width:
                self.literal(" " * flags.width)
            return
        if precision is None:
            precision = 0
            if flags.zero and not flags.minus and flags.width is not None:
                precision = flags.width - (value < 0 or flags.plus or flags.space)
        self._budget.allocate(max(precision, 0))
        digits = format(abs(value), base).rjust(precision, "0")
        prefix = ""
        if sharp:
            prefix = {"b": "0b", "x": "0x", "X": "0X", "d": ""}.get(base) or ""
            if base == "o" and not digits.startswith("0"):
                prefix = "0"
        if octal_mark:
            prefix = "0o" + prefix
        sign = "-" if value < 0 else "+" if flags.plus else " " if flags.space else ""
        self._pad_with_spaces(Text.of(sign + prefix + digits, is_data))

    def _unicode(self, code: int, is_data: bool) -> None:
        precision = max(self.flags.precision or 0, 4)
        self._budget.allocate(precision)
        text = f"U+{code:0{precision}X}"
        if self.flags.sharp and code <= 0x10FFFF and is_printable(chr(code)):
            text += f" '{chr(code)}'"
        self._pad_with_spaces(Text.of(text, is_data))

    def _float(self, value: float, verb: str) -> None:
        if verb not in _FLOAT_FORMS:
            self.bad_verb(value, verb)
            return
        form, precision = _FLOAT_FORMS[verb]
        if self.flags.precision is not None:
            precision = self.flags.precision
        self._budget.allocate(max(precision, 0))
        number = format_float(value, form, precision)
        if number[0] not in "+-":
            number = "+" + number
        flags = self.flags
        if flags.space and number[0] == "+" and not flags.plus:
            number = " " + number[1:]
        if number[1] in "IN":
            if number[1] == "N" and not flags.space and not flags.plus:
                number = number[1:]
            self._pad_with_spaces(Text.trusted(number))
            return
        if flags.sharp and form != "b":
            number = _with_point(number, form, precision)
        if not flags.plus and number[0] == "+":
            self._pad(Text.trusted(number[1:]))
        elif flags.zero and not flags.minus and (flags.width or 0) > len(number):
            # The sign comes before the zeros.
            self.literal(number[0])
            self._out.literal(self._padding((flags.width or 0) - len(number)))
            self.literal(number[1:])
        else:
            self._pad(Text.trusted(number))

    def _complex(self, value: complex, verb: str) -> None:
        if verb not in _FLOAT_FORMS:
            self.bad_verb(value, verb)
            return
        plus = self.flags.plus
        self.literal("(")
        self._float(value.real, verb)
        self.flags.plus = True
        self._float(value.imag, verb)
        self.literal("i)")
        self.flags.plus = plus

    # Strings.

    def _string(self, text: Text, verb: str) -> None:
        if verb == "s" or (verb == "v" and not self.flags.sharp_v):
            self._pad(self._truncated(text))
        elif verb in "xX":
            self._hexadecimal(text, verb)
        elif verb in "vq":
            self._quoted(self._truncated(text))
        else:
            self.bad_verb(text, verb)

    def _truncated(self, text: Text) -> Text:
        precision = self.flags.precision
        if precision is None or precision >= len(text):
            return text
        # A character has at most four bytes; what is cut in two lies beyond the precision.
        head = decode(text.raw[: 4 * precision + 4])[:precision]
        return text.cut(0, len(head.encode("utf-8", "surrogateescape")))

    def _quoted(self, text: Text) -> None:
        if self.flags.sharp and can_backquote(text):
            self._pad(Text(b"`%b`" % text.raw, b"\x00%b\x00" % text.mask))
        else:
            self._pad(quote(text, self._budget, self.flags.plus))

    def _hexadecimal(self, text: Text, verb: str) -> None:
        flags = self.flags
        if flags.precision is not None:
            text = text.cut(0, flags.precision)
        if not text.raw:
            self._out.literal(self._padding(flags.width or 0))
            return
        self._budget.spend(len(text) >> 3)
        mark = "0" + verb if flags.sharp else ""
        parts = [format(byte, "02" + verb) for byte in text.raw]
        if flags.space:
            parts = [mark + parts[0], *(" " + mark + part for part in parts[1:])]
        else:
            parts[0] = mark + parts[0]
        raw = "".join(parts).encode()
        mask = b"".join(text.mask[i : i + 1] * len(part) for i, part in enumerate(parts))
        self._pad(Text(raw, mask))

    # What holds other values.

    def _slice(self, value: Slice, verb: str, depth: int) -> None:
        sharp_v = self.flags.sharp_v
        self.literal(f"{type_name(value)}{{" if sharp_v else "[")
        for index in range(len(value)):
            if index:
                self.literal(", " if sharp_v else " ")
            self.value(value[index], verb, depth + 1)
        self.literal("}" if sharp_v else "]")

    def _map(self, value: Map, verb: str, depth: int) -> None:
        sharp_v = self.flags.sharp_v
        self.literal(f"{type_name(value)}{{" if sharp_v else "map[")
        for index, (key, element) in enumerate(value.items()):
            if index:
                self.literal(", " if sharp_v else " ")
            self.value(key, verb, depth + 1)
            self.literal(":")
            self.value(element, verb, depth + 1)
        self.literal("}" if sharp_v else "]")

    def _struct(self, value: GoStruct, verb: str, depth: int) -> None:
        sharp_v = self.flags.sharp_v
        self.literal(f"{type_name(value)}{{" if sharp_v else "{")
        for index, (name, get) in enumerate(value.go_fields.items()):
            if index:
                self.literal(", " if sharp_v else " ")
            if sharp_v or self.flags.plus_v:
                self.literal(f"{name}:")
            self.value(wrap(get(value)), verb, depth + 1)
        self.literal("}")

    def _pointer(self, value: Value) -> None:
        if not isinstance(value, Slice | Map):
            self.bad_verb(value, "p")
            return
        self._in_base(_ADDRESS, "x", not self.flags.sharp, False, False)


def _verb_text(verb: str) -> str:
    return "\ufffd" if "\udc80" <= verb <= "\udcff" else verb


def _with_point(number: str, form: str, precision: int) -> str:
    """Add the point, and the trailing zeros that `%g` leaves out, for the flag `#`."""
    digits = 0
    if form in "gGx":
        digits = 6 if precision == -1 else precision
    end = len(number)
    for index, char in enumerate(number):
        if char in "pP" or (char in "eE" and form not in "xX"):
            end = index
            break
    number, tail = number[:end], number[end:]
    seen_nonzero = False
    for char in number[1:]:
        if char == ".":
            continue
        seen_nonzero = seen_nonzero or char != "0"
        digits -= seen_nonzero
    if "." not in number:
        # A lone zero counts as a digit.
        digits -= number[1:] == "0"
        number += "."
    return number + "0" * max(digits, 0) + tail
