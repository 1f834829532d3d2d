"""What an option is: its names, its type, its range."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from llm_api import strconv
from llm_api.flags import Flag

Value = int | float | str | bool | tuple[str, ...]

_PARSERS: Final = {int: strconv.parse_int, float: strconv.parse_float, bool: strconv.parse_bool}
_TYPE_NAMES: Final = {int: "int", float: "float", str: "string", bool: "bool"}
_TYPE_TEXTS: Final = {
    int: "a whole number",
    float: "a number",
    str: "a string",
    bool: "true or false",
}
_EXCERPT_CHARS = 64


class OptionError(ValueError):
    """A value, or a name, that cannot be accepted.

    `name` is spelled as whoever gave the value spells it; `reason` says what
    to change.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class Scope(Enum):
    """What an option is about."""

    GENERATION = "generation"
    SERVER = "server"
    PROMPT = "prompt"
    COMMAND = "command"


class Combine(Enum):
    """What a request's value does to the server's."""

    REPLACE = "replaces the server's"
    ADD = "applies beside the server's"
    LOWER = "may lower the server's limit, not raise it"


class Spelling(Enum):
    """The names under which one generation option is known."""

    KEY = "snake_case, in Python"
    FIELD = "camelCase, in forms and JSON"
    OPENAI = "as in the OpenAI API"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option.

    The bounds belong to the range; with `above_minimum` the lower one does not.
    A string with `choices` must be one of them.
    `openai` is the name in the OpenAI API, if it has the option.
    A `repeated` option takes any number of strings, as a tuple.
    `documented_default` stands for a default that depends on the machine.
    The values of a `secret` option are shown to nobody.
    """

    name: str
    scope: Scope
    type: type[int] | type[float] | type[str] | type[bool]
    default: Value
    help: str
    minimum: float | None = None
    maximum: float | None = None
    above_minimum: bool = False
    choices: tuple[str, ...] = ()
    openai: str | None = None
    in_config_file: bool = False
    repeated: bool = False
    combine: Combine = Combine.REPLACE
    documented_default: str | None = None
    secret: bool = False

    @property
    def key(self) -> str:
        """The name in Python: ``top_k``."""
        return self.name.replace("-", "_")

    @property
    def field(self) -> str:
        """The name in forms and JSON: ``topK``."""
        head, *tail = self.name.split("-")
        return head + "".join(word.capitalize() for word in tail)

    def spelled(self, spelling: Spelling) -> str | None:
        """The name in one spelling; None where that spelling has none."""
        match spelling:
            case Spelling.KEY:
                return self.key
            case Spelling.FIELD:
                return self.field
            case Spelling.OPENAI:
                return self.openai

    @property
    def type_name(self) -> str:
        """The name of the type: ``int``, ``float``, ``string`` or ``bool``."""
        return _TYPE_NAMES[self.type]

    @property
    def type_text(self) -> str:
        """The type in words: ``a whole number``."""
        return _TYPE_TEXTS[self.type]

    @property
    def flag(self) -> Flag:
        """The option's flag. Its value comes out checked, but for those that add up."""

        def parse(text: str) -> object:
            value = self.convert(text)
            is_one_of_many = self.repeated or self.combine is Combine.ADD
            return value if is_one_of_many else self.check(value)

        return Flag(
            name=self.name,
            type_name="" if self.type is bool else self.type_name,
            parse=parse,
            usage=self.help,
            default_text=_default_text(self.default),
            repeated=self.repeated,
        )

    def convert(self, text: str) -> object:
        """Turn text into the option's type; raises ValueError in the words of `strconv`."""
        parser = _PARSERS.get(self.type)
        return parser(text) if parser else text

    def check(self, value: object) -> Value:
        """Return the value if it has the type and is in range, else raise ValueError.

        An option whose values add up takes a string or a sequence of strings
        and gives a tuple; empty strings stand for "none".
        """
        if self.combine is Combine.ADD:
            return tuple(text for text in _check_strings(value) if text)
        if self.repeated:
            return _check_strings(value)
        if self.type is bool:
            if isinstance(value, bool):
                return value
            raise ValueError(f"must be {self.type_text}")
        if self.type is str:
            return self._check_choice(_check_string(value, self.type_text))
        return self._check_number(value)

    def _check_choice(self, value: str) -> str:
        if self.choices and value not in self.choices:
            raise ValueError(f"must be {' or '.join(self.choices)}")
        return value

    def _check_number(self, value: object) -> int | float:
        wanted = int if self.type is int else int | float
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise ValueError(f"must be {self.type_text}")
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("must be finite")
        low, high = self.minimum, self.maximum
        if low is not None and (value < low or (self.above_minimum and value == low)):
            bound = "greater than" if self.above_minimum else "at least"
            raise ValueError(f"must be {bound} {number_text(low)}")
        if high is not None and value > high:
            raise ValueError(f"must be at most {number_text(high)}")
        return value if self.type is int else float(value)


def number_text(value: float) -> str:
    """Write a number as shortly as it can be: ``5``, ``0.1``."""
    return str(int(value)) if value == int(value) else repr(value)


def _check_string(value: object, wanted: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be {wanted}")
    # JSON escapes and arguments that are not UTF-8 can make half a character.
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise ValueError("must be valid Unicode text")
    return value


def _check_strings(value: object) -> tuple[str, ...]:
    wanted = "a string or a list of strings"
    values = (value,) if isinstance(value, str) else value
    if not isinstance(values, Sequence):
        raise ValueError(f"must be {wanted}")
    return tuple(_check_string(item, wanted) for item in values)


def _default_text(default: Value) -> str:
    """Write a default as Go's usage does, nothing for the zero of its type."""
    if not default:
        return ""
    if isinstance(default, bool):
        return "true"
    return number_text(default) if isinstance(default, int | float) else strconv.quote(str(default))


def excerpt(text: str) -> str:
    """Quote the beginning of a text that may be long or hold anything."""
    cut = "…" if len(text) > _EXCERPT_CHARS else ""
    return strconv.quote(text[:_EXCERPT_CHARS]) + cut
