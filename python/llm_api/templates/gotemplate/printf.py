"""The formats of `printf`, `print` and `println`."""

import re
from collections.abc import Sequence

from llm_api.templates.gotemplate.limits import Budget
from llm_api.templates.gotemplate.printer import Flags, Printer
from llm_api.templates.gotemplate.text import Text, decode
from llm_api.templates.gotemplate.values import Value, type_name

__all__ = ["sprint", "sprintf", "sprintln"]

_MAX_NUMBER = 1_000_000
_STEPS_A_DIRECTIVE = 4
_FLAGS = {"#": "sharp", "0": "zero", "+": "plus", "-": "minus", " ": "space"}
_DIGITS = re.compile("[0-9]*")


def sprint(budget: Budget, values: Sequence[Value]) -> Text:
    """Write values one after another, with a space between two that are not strings."""
    printer = Printer(budget)
    after_string = True
    for value in values:
        is_string = isinstance(value, Text)
        if not is_string and not after_string:
            printer.literal(" ")
        printer.value(value, "v")
        after_string = is_string
    return printer.build()


def sprintln(budget: Budget, values: Sequence[Value]) -> Text:
    """Write values with spaces between them and a newline after them."""
    printer = Printer(budget)
    for index, value in enumerate(values):
        if index:
            printer.literal(" ")
        printer.value(value, "v")
    printer.literal("\n")
    return printer.build()


def sprintf(budget: Budget, template: Text, values: Sequence[Value]) -> Text:
    """Write values as a format says.  If the format holds data, so does all of the result."""
    result = _Format(budget, template, values).run()
    return Text.data(result.raw) if template.has_data else result


class _Format:
    """One run through a format.

    The format is decoded, so that its verbs are characters; bytes of other texts than UTF-8 go
    through as surrogates.
    """

    def __init__(self, budget: Budget, template: Text, values: Sequence[Value]) -> None:
        self._budget = budget
        self._printer = Printer(budget)
        self._source = decode(template.raw)
        self._position = 0
        self._values = values
        self._next_value = 0
        self._reordered = False
        self._good_index = True
        self._no_bracket_after: int | None = None

    def run(self) -> Text:
        source, printer = self._source, self._printer
        while self._position < len(source):
            percent = source.find("%", self._position)
            end = len(source) if percent < 0 else percent
            if end > self._position:
                text = source[self._position : end].encode("utf-8", "surrogateescape")
                printer.write(Text.trusted(text))
            self._position = end + 1
            if percent >= 0:
                self._budget.spend(_STEPS_A_DIRECTIVE)
                self._directive()
        if not self._reordered and self._next_value < len(self._values):
            self._extra()
        return printer.build()

    def _extra(self) -> None:
        printer = self._printer
        printer.flags = Flags()
        printer.literal("%!(EXTRA ")
        for index, value in enumerate(self._values[self._next_value :]):
            if index:
                printer.literal(", ")
            if value is None:
                printer.literal("<nil>")
            else:
                printer.literal(f"{type_name(value)}=")
                printer.value(value, "v")
        printer.literal(")")

    def _char(self) -> str:
        return self._source[self._position : self._position + 1]

    def _directive(self) -> None:
        printer = self._printer
        flags = printer.flags = Flags()
        self._good_index = True
        while name := _FLAGS.get(self._char()):
            setattr(flags, name, True)
            self._position += 1
        after_index = self._index()
        after_index = self._width(flags, after_index)
        after_index = self._precision(flags, after_index)
        if not after_index:
            self._index()
        verb = self._char()
        self._position += 1
        if not verb:
            printer.literal("%!(NOVERB)")
        elif verb == "%":
            printer.literal("%")
        elif not self._good_index:
            printer.marker(verb, "BADINDEX")
        elif self._next_value >= len(self._values):
            printer.marker(verb, "MISSING")
        else:
            if verb in "vw":
                flags.sharp_v, flags.sharp = flags.sharp, False
                flags.plus_v, flags.plus = flags.plus, False
            printer.value(self._values[self._next_value], verb)
            self._next_value += 1

    def _width(self, flags: Flags, after_index: bool) -> bool:
        if self._char() == "*":
            self._position += 1
            flags.width = self._star()
            if flags.width is None:
                self._printer.literal("%!(BADWIDTH)")
            elif flags.width < 0:
                flags.width = -flags.width
                flags.minus = True
                flags.zero = False
            return False
        flags.width = self._number()
        if after_index and flags.width is not None:
            self._good_index = False
        return after_index

    def _precision(self, flags: Flags, after_index: bool) -> bool:
        if self._char() != "." or self._position + 1 >= len(self._source):
            return after_index
        self._position += 1
        if after_index:
            self._good_index = False
        after_index = self._index()
        if self._char() == "*":
            self._position += 1
            flags.precision = self._star()
            if flags.precision is not None and flags.precision < 0:
                flags.precision = None
            if flags.precision is None:
                self._printer.literal("%!(BADPREC)")
            return False
        flags.precision = self._number() or 0
        return after_index

    def _number(self) -> int | None:
        """Take a number; one that is too large takes the rest of the format with it."""
        match = _DIGITS.match(self._source, self._position)
        assert match is not None
        digits = match[0]
        if not digits:
            return None
        # Too large shows before the last digit is taken.
        significant = digits.lstrip("0")
        if len(significant) > 8 or int(significant[:-1] or "0") > _MAX_NUMBER:
            self._position = len(self._source)
            return None
        self._position = match.end()
        return int(significant or "0")

    def _star(self) -> int | None:
        """Take a width or precision from the values."""
        if self._next_value >= len(self._values):
            return None
        value = self._values[self._next_value]
        self._next_value += 1
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _MAX_NUMBER:
            return None
        return int(value)

    def _index(self) -> bool:
        """Take `[n]`, the number of the next value; return whether there is one."""
        if self._char() != "[":
            return False
        self._reordered = True
        start = self._position
        end = self._closing_bracket(start)
        if len(self._source) - start < 3 or end < 0:
            self._good_index = False
            self._position = start + 1
            return False
        self._position = start + 1
        number = self._number()
        is_number = number is not None and self._position == end
        self._position = end + 1
        if is_number and number is not None and 1 <= number <= len(self._values):
            self._next_value = number - 1
            return True
        self._good_index = False
        return is_number

    def _closing_bracket(self, start: int) -> int:
        if self._no_bracket_after is not None and start >= self._no_bracket_after:
            return -1
        end = self._source.find("]", start)
        if end < 0:
            self._no_bracket_after = start
        return end
