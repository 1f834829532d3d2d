"""The functions `eq`, `ne`, `lt`, `le`, `gt` and `ge`."""

from llm_api.templates.gotemplate.limits import Budget, ExecError
from llm_api.templates.gotemplate.text import Text
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

__all__ = ["equal", "equal_any", "less"]

# Long strings take time to compare: a step for each so many bytes.
_BYTES_A_STEP = 4096


def _basic_kind(value: Value) -> str | None:
    """Name the kind of a value that can be ordered or compared; signed and not are alike."""
    match value:
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float"
        case complex():
            return "complex"
        case Text():
            return "string"
    return None


def _incompatible(a: Value, b: Value) -> ExecError:
    return ExecError(
        f"incompatible types for comparison: {type_name(a)} and {type_name(b)}",
    )


def _is_nil(value: Value) -> bool:
    return value is None or value is INVALID


def equal_any(budget: Budget, first: Value, *others: Value) -> bool:
    """Whether the first value equals one of the others."""
    if not others:
        raise ExecError("missing argument for comparison")
    return any(equal(budget, first, other) for other in others)


def equal(budget: Budget, a: Value, b: Value) -> bool:
    """Whether two values are equal; ExecError if they can't be compared."""
    kind = _basic_kind(a)
    if kind != _basic_kind(b):
        if _is_nil(a) or _is_nil(b):
            return False
        raise _incompatible(a, b)
    if kind is not None:
        if isinstance(a, Text) and isinstance(b, Text) and len(a) == len(b):
            budget.spend(len(a) // _BYTES_A_STEP)
        return a == b
    if _is_nil(a) or _is_nil(b):
        return _is_nil(a) and _is_nil(b)
    if not isinstance(b, GoStruct) or not isinstance(a, GoStruct) or not _is_comparable(b):
        raise ExecError(f"non-comparable types {type_name(a)}, {type_name(b)}")
    return a.go_type == b.go_type and all(
        equal(budget, wrap(get(a)), wrap(get(b))) for get in a.go_fields.values()
    )


def _is_comparable(value: GoStruct) -> bool:
    fields = (wrap(get(value)) for get in value.go_fields.values())
    return not any(
        isinstance(field, Slice | Map)
        or (isinstance(field, GoStruct) and not _is_comparable(field))
        for field in fields
    )


def less(budget: Budget, a: Value, b: Value) -> bool:
    """Whether a value is less than another; ExecError if they can't be ordered."""
    kinds = _basic_kind(a), _basic_kind(b)
    if None in kinds:
        raise ExecError("invalid type for comparison")
    if kinds[0] != kinds[1]:
        raise _incompatible(a, b)
    match a, b:
        case (Text(), Text()):
            budget.spend(min(len(a), len(b)) // _BYTES_A_STEP)
            return a.raw < b.raw
        case (bool(), _) | (complex(), _):
            raise ExecError("invalid type for comparison")
        case (int() | float() | Uint8(), int() | float() | Uint8()):
            return a < b
    raise _incompatible(a, b)
