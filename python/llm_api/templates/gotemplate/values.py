"""The values of the template language, and how Python's objects become such values.

A value is a bool, int, float, complex, `Uint8`, `Text`, `Slice`, `Map`, `GoStruct`, None (an
interface that holds nil) or `INVALID` (no value at all, such as a missing key's).

The only way from a template to a Python object is a name that a `GoStruct` declares.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, ClassVar, Final, Literal

from llm_api.templates.gotemplate.limits import ExecError
from llm_api.templates.gotemplate.text import Text, encode

__all__ = [
    "INT64_MAX",
    "INVALID",
    "GoStruct",
    "Map",
    "Slice",
    "Uint8",
    "Value",
    "is_true",
    "type_name",
    "wrap",
]

_INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1


class _Invalid(Enum):
    INVALID = "no value"


INVALID: Final = _Invalid.INVALID


class GoStruct:
    """A value with declared fields and methods.

    A subclass names its type and gives, in order, a function of the object for each field, and
    for each method; methods take no arguments and raise LookupError to fail.  What the functions
    return is converted as `wrap` says: a str is data, a Text is what it says it is.  The function
    `json` writes a field under its name, or the one given for it.
    """

    __slots__ = ()

    go_type: ClassVar[str]
    go_fields: ClassVar[Mapping[str, Callable[[Any], object]]]
    go_methods: ClassVar[Mapping[str, Callable[[Any], object]]] = {}
    go_json_names: ClassVar[Mapping[str, str]] = {}


class Uint8(int):
    """A byte of a string; `is_data` if the string's byte is a client's."""

    is_data = False

    @classmethod
    def of(cls, value: int, is_data: bool) -> "Uint8":
        """Make a byte of the kind named by `is_data`."""
        self = cls(value)
        self.is_data = is_data
        return self


class Slice:
    """A list: a window on an array, which `slice` can open again up to the array's end."""

    __slots__ = ("_array", "_end", "_limit", "_start", "element_type")

    def __init__(self, array: Sequence[object], element_type: str = "interface {}") -> None:
        self._array = array
        self.element_type = element_type
        self._start, self._end, self._limit = 0, len(array), len(array)

    def __len__(self) -> int:
        return self._end - self._start

    def __getitem__(self, index: int) -> "Value":
        if not 0 <= index < len(self):
            raise IndexError(index)
        return wrap(self._array[self._start + index])

    @property
    def capacity(self) -> int:
        """The number of elements up to the end of the array."""
        return self._limit - self._start

    def cut(self, start: int, end: int, limit: int | None = None) -> "Slice":
        """Return the window from `start` up to `end`, which may open up to `limit`."""
        result = Slice(self._array, self.element_type)
        result._start = self._start + start
        result._end = self._start + end
        result._limit = self._limit if limit is None else self._start + limit
        return result


class Map:
    """A map with string keys, in the order of the keys' bytes."""

    __slots__ = ("_items",)

    def __init__(self, items: Mapping[str, object]) -> None:
        keys = sorted((_text(key) for key in items), key=lambda text: text.raw)
        values = {_text(key): value for key, value in items.items()}
        self._items = {key: values[key] for key in keys}

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: Text) -> "Value":
        """Return the value of a key, INVALID if there is none."""
        return wrap(self._items[key]) if key in self._items else INVALID

    def items(self) -> list[tuple[Text, "Value"]]:
        """Return keys and values in order."""
        return [(key, wrap(value)) for key, value in self._items.items()]


Value = (
    bool
    | int
    | float
    | complex
    | Uint8
    | Text
    | Slice
    | Map
    | GoStruct
    | None
    | Literal[_Invalid.INVALID]
)


def _text(text: object) -> Text:
    if isinstance(text, Text):
        return text
    if isinstance(text, str):
        return Text.data(encode(text))
    raise ExecError(f"a map's key can't be of the type {type(text).__name__}")


def wrap(value: object) -> Value:
    """Make a Python object a value; lists and dicts are converted when they are looked into.

    Strings are data, since only a `Text` can say that it is not.
    """
    match value:
        case None | bool() | float() | complex() | Text() | Slice() | Map() | GoStruct():
            return value
        case Uint8():
            return value
        case int():
            # Go reads a number too big for its integers as a float.
            return value if _INT64_MIN <= value <= INT64_MAX else float(value)
        case str():
            return _text(value)
        case list() | tuple():
            types = {element.go_type for element in value if isinstance(element, GoStruct)}
            if len(types) == 1 and all(isinstance(element, GoStruct) for element in value):
                return Slice(value, types.pop())
            return Slice(value)
        case dict():
            return Map(value)
    raise ExecError(f"a template can't use a value of the type {type(value).__name__}")


def type_name(value: Value) -> str:
    """Name the type of a value as Go does."""
    match value:
        case bool():
            return "bool"
        case Uint8():
            return "uint8"
        case int():
            return "int"
        case float():
            return "float64"
        case complex():
            return "complex128"
        case Text():
            return "string"
        case Slice():
            return f"[]{value.element_type}"
        case Map():
            return "map[string]interface {}"
        case GoStruct():
            return value.go_type
    return "nil"


def is_true(value: Value) -> bool:
    """Whether a value is not empty: not zero, not nil and of some length."""
    match value:
        case None | _Invalid.INVALID:
            return False
        case Text() | Slice() | Map():
            return len(value) > 0
        case GoStruct():
            return True
    return bool(value)
