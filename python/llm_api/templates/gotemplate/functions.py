"""The functions that templates may call."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from itertools import pairwise

from llm_api.templates.gotemplate.compare import equal, equal_any, less
from llm_api.templates.gotemplate.floats import format_float
from llm_api.templates.gotemplate.limits import MAX_VALUE_DEPTH, Budget, ExecError
from llm_api.templates.gotemplate.printf import sprint, sprintf, sprintln
from llm_api.templates.gotemplate.quoting import escape_html, escape_js, escape_url, quote_json
from llm_api.templates.gotemplate.text import Text, TextBuilder
from llm_api.templates.gotemplate.values import (
    INVALID,
    GoStruct,
    Map,
    Slice,
    Uint8,
    Value,
    is_true,
    type_name,
    wrap,
)

__all__ = ["BUILTINS", "EXTRAS", "Function", "Parameter"]


class Parameter(Enum):
    """What a function takes: any value, where no value becomes nil; or as it is; or a string."""

    ANY = auto()
    AS_IS = auto()
    STRING = auto()


@dataclass(frozen=True, slots=True)
class Function:
    """A function, called with the budget and its arguments; the last parameter may repeat."""

    call: Callable[..., Value]
    parameters: tuple[Parameter, ...]
    repeats: bool = False

    def parameter(self, index: int) -> Parameter:
        """Return the parameter that takes the argument at an index."""
        return self.parameters[min(index, len(self.parameters) - 1)]

    def check_count(self, name: str, count: int) -> None:
        """Raise ExecError unless the function takes so many arguments."""
        least = len(self.parameters) - self.repeats
        if count < least or (count > least and not self.repeats):
            want = f"at least {least}" if self.repeats else str(least)
            raise ExecError(f"wrong number of args for {name}: want {want} got {count}")


def _index_argument(index: Value, limit: int) -> int:
    if index is None or index is INVALID:
        raise ExecError("cannot index slice/array with nil")
    if isinstance(index, bool) or not isinstance(index, int):
        raise ExecError(f"cannot index slice/array with type {type_name(index)}")
    if not 0 <= index <= limit:
        raise ExecError(f"index out of range: {index}")
    return int(index)


def _index(_: Budget, item: Value, *indexes: Value) -> Value:
    if item is None or item is INVALID:
        raise ExecError("index of untyped nil")
    for index in indexes:
        match item:
            case Slice():
                item = item[_index_argument(index, len(item) - 1)]
            case Text():
                position = _index_argument(index, len(item) - 1)
                item = Uint8.of(item.raw[position], bool(item.mask[position]))
            case Map():
                if not isinstance(index, Text):
                    raise ExecError(f"value has type {type_name(index)}; should be string")
                found = item.get(index)
                item = None if found is INVALID else found
            case None:
                raise ExecError("index of nil pointer")
            case _:
                raise ExecError(f"can't index item of type {type_name(item)}")
    return item


def _slice(budget: Budget, item: Value, *indexes: Value) -> Value:
    if item is None or item is INVALID:
        raise ExecError("slice of untyped nil")
    if len(indexes) > 3:
        raise ExecError(f"too many slice indexes: {len(indexes)}")
    match item:
        case Text():
            if len(indexes) == 3:
                raise ExecError("cannot 3-index slice a string")
            capacity = len(item)
        case Slice():
            capacity = item.capacity
        case _:
            raise ExecError(f"can't slice item of type {type_name(item)}")
    bounds = [0, len(item)]
    bounds[: len(indexes)] = [_index_argument(index, capacity) for index in indexes]
    for low, high in pairwise(bounds):
        if low > high:
            raise ExecError(f"invalid slice index: {low} > {high}")
    if isinstance(item, Text):
        budget.allocate(bounds[1] - bounds[0])
        return item.cut(bounds[0], bounds[1])
    return item.cut(*bounds)


def _len(_: Budget, item: Value) -> Value:
    if isinstance(item, Text | Slice | Map):
        return len(item)
    raise ExecError(f"len of type {type_name(item)}")


def _call(_: Budget, function: Value, *_arguments: Value) -> Value:
    # No value of a template is a function.
    if function is None or function is INVALID:
        raise ExecError("call of nil")
    raise ExecError(f"non-function of type {type_name(function)}")


def _never_called(_: Budget, *_arguments: Value) -> Value:
    raise AssertionError("the executor evaluates `and` and `or` itself")


def _printed(budget: Budget, values: Sequence[Value]) -> Text:
    """Write values as an action would: no value shows as `<no value>`."""
    if len(values) == 1 and isinstance(values[0], Text):
        return values[0]
    no_value = Text.trusted("<no value>")
    return sprint(budget, [no_value if value is None else value for value in values])


def _json(budget: Budget, value: Value) -> Value:
    builder = TextBuilder(budget)
    _write_json(builder, budget, value, 0)
    return builder.build()


def _write_json(builder: TextBuilder, budget: Budget, value: Value, depth: int) -> None:
    budget.spend()
    if depth > MAX_VALUE_DEPTH:
        raise ExecError("the value to print is nested too deeply")
    match value:
        case bool():
            builder.literal("true" if value else "false")
        case Uint8():
            builder.literal(str(int(value)), value.is_data)
        case int():
            builder.literal(str(value))
        case float():
            builder.literal(_json_float(value))
        case Text():
            builder.write(quote_json(value, budget))
        case Slice():
            elements = [(None, value[index]) for index in range(len(value))]
            _write_json_items(builder, budget, elements, "[]", depth)
        case Map():
            _write_json_items(builder, budget, value.items(), "{}", depth)
        case GoStruct():
            fields = [
                (Text.trusted(value.go_json_names.get(name, name)), wrap(get(value)))
                for name, get in value.go_fields.items()
            ]
            _write_json_items(builder, budget, fields, "{}", depth)
        case complex():
            raise ExecError("json: unsupported type: complex128")
        case _:
            builder.literal("null")


def _write_json_items(
    builder: TextBuilder,
    budget: Budget,
    items: Sequence[tuple[Text | None, Value]],
    brackets: str,
    depth: int,
) -> None:
    builder.literal(brackets[0])
    for position, (key, value) in enumerate(items):
        if position:
            builder.literal(",")
        if key is not None:
            builder.write(quote_json(key, budget))
            builder.literal(":")
        _write_json(builder, budget, value, depth + 1)
    builder.literal(brackets[1])


def _json_float(value: float) -> str:
    size = abs(value)
    if size == 0 or 1e-6 <= size < 1e21:
        return format_float(value, "f")
    text = format_float(value, "e")
    return text.replace("e-0", "e-")


_ANY, _AS_IS, _STRING = Parameter.ANY, Parameter.AS_IS, Parameter.STRING


def _comparison(compare: Callable[[Budget, Value, Value], bool]) -> Function:
    return Function(compare, (_AS_IS, _AS_IS))


def _at_most(budget: Budget, a: Value, b: Value) -> bool:
    return less(budget, a, b) or equal(budget, a, b)


def _escaper(escape: Callable[[Text, Budget], Text]) -> Function:
    def call(budget: Budget, *values: Value) -> Value:
        return escape(_printed(budget, values), budget)

    return Function(call, (_ANY,), repeats=True)


BUILTINS = {
    "and": Function(_never_called, (_AS_IS, _AS_IS), repeats=True),
    "call": Function(_call, (_AS_IS, _AS_IS), repeats=True),
    "html": _escaper(escape_html),
    "index": Function(_index, (_AS_IS, _AS_IS), repeats=True),
    "js": _escaper(escape_js),
    "len": Function(_len, (_AS_IS,)),
    "not": Function(lambda _, value: not is_true(value), (_AS_IS,)),
    "or": Function(_never_called, (_AS_IS, _AS_IS), repeats=True),
    "print": Function(lambda budget, *values: sprint(budget, values), (_ANY,), repeats=True),
    "printf": Function(
        lambda budget, template, *values: sprintf(budget, template, values),
        (_STRING, _ANY),
        repeats=True,
    ),
    "println": Function(lambda budget, *values: sprintln(budget, values), (_ANY,), repeats=True),
    "slice": Function(_slice, (_AS_IS, _AS_IS), repeats=True),
    "urlquery": _escaper(escape_url),
    "eq": Function(equal_any, (_AS_IS, _AS_IS), repeats=True),
    "ne": _comparison(lambda budget, a, b: not equal(budget, a, b)),
    "lt": _comparison(less),
    "le": _comparison(_at_most),
    "gt": _comparison(lambda budget, a, b: not _at_most(budget, a, b)),
    "ge": _comparison(lambda budget, a, b: not less(budget, a, b)),
}
"""The functions every template has."""

EXTRAS = {"json": Function(_json, (_ANY,))}
"""Functions a template has only if it is parsed with their names."""
