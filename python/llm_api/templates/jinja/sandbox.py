"""A Jinja environment for chat templates nobody has read: safe, bounded and with provenance.

jinja2's sandbox keeps a template from the rest of the process.  This one adds two things, both by
way of the code that Jinja generates:

- The text of the template, in its expressions as well, becomes `Tracked` text that is trusted.
  All other text is data.
- No template runs forever or fills the memory.  Every block of statements (so every round of a
  loop), call and operator looks at the clock; every value that an expression makes is measured and
  taken off a budget.  What could make much of little in one step is checked before (`*`, `**`,
  the width of a format) or isn't there: only the filters and methods that are listed here exist,
  and each of them takes time in proportion to what it is given.
"""

# ruff: noqa: ANN401 (a template hands over values of any type)

import json
import re
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import wraps
from types import BuiltinMethodType, NoneType
from typing import Any, NoReturn

from jinja2 import TemplateRuntimeError, Undefined
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Joiner, Namespace, pass_environment

from llm_api.templates.jinja.compiler import Generation, TrackingCodeGenerator
from llm_api.templates.jinja.tracked import (
    ELEMENT_SIZE,
    LimitError,
    Tracked,
    check_length,
    concat,
    data,
    trusted,
)

__all__ = ["ChatEnvironment"]

MAX_SECONDS = 5.0
"""How long one rendering may take; those of real models take about a millisecond."""

MAX_SIZE = 1 << 26
"""How many characters all expressions of one rendering may make together."""

_MAX_INTEGER_BITS = 4096
_MAX_WIDTH = 1000
_WIDE_FIELD = re.compile(r"%(?:\([^()]*\))?[^a-zA-Z%]*(?:\d{4}|\*)")

_CHOOSING_FILTERS = frozenset({"d", "default", "first", "last", "max", "min"})
_MAKING_FILTERS = frozenset(
    {"abs", "capitalize", "count", "dictsort", "float", "int", "items", "length", "list", "lower"}
    | {"map", "reject", "rejectattr", "reverse", "select", "selectattr", "title", "trim"}
    | {"unique", "upper"}
)

_STRING_METHODS = frozenset(
    {"capitalize", "count", "endswith", "find", "format", "index", "isalnum", "isalpha"}
    | {"isdecimal", "isdigit", "islower", "isnumeric", "isspace", "istitle", "isupper", "join"}
    | {"lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace", "rfind"}
    | {"rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip"}
    | {"title", "upper"}
)
_METHODS: tuple[tuple[type, frozenset[str]], ...] = (
    (str, _STRING_METHODS),
    (dict, frozenset({"get", "items", "keys", "values"})),
    (list, frozenset({"count", "index"})),
    (tuple, frozenset({"count", "index"})),
)
_OBJECTS = (LoopContext, Macro, Joiner, Namespace, Undefined)
"""Types whose public attributes are all harmless."""
_ATOMS = (int, float, NoneType, *_OBJECTS)
_CONTAINERS = (list, tuple, dict)


class _Formatter(SandboxedFormatter):
    """`str.format` with a bound on the width of a field."""

    def format_field(self, value: Any, format_spec: str) -> Any:
        if re.search(r"\d{4}", format_spec):
            raise LimitError(
                f"the format {format_spec!r} is wider than {_MAX_WIDTH - 1} characters"
            )
        return super().format_field(value, format_spec)


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """The environment; not for more than one rendering at a time, which begins with `start`."""

    code_generator_class = TrackingCodeGenerator
    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})
    trusted = staticmethod(trusted)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols", Generation],
            finalize=self.text_of,
            optimized=False,  # an expression of constants is to be bounded like any other
            cache_size=0,
        )
        filters: dict[str, Callable[..., Any]] = {name: FILTERS[name] for name in _MAKING_FILTERS}
        filters |= {
            "join": _join,
            "replace": self._replace,
            "safe": self.text_of,
            "string": self.text_of,
            "tojson": self._tojson,
        }
        self.filters = {name: FILTERS[name] for name in _CHOOSING_FILTERS}
        self.filters |= {name: self._measuring(function) for name, function in filters.items()}
        tests: dict[str, Any] = dict(self.tests)
        self.tests = {name: self._measuring(test) for name, test in tests.items()}
        self.globals = {
            "namespace": _Namespace,
            "joiner": Joiner,
            "range": self.globals["range"],
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }
        self.start()

    def start(self) -> None:
        """Begin a rendering: the clock and the budget are new."""
        self._deadline = time.monotonic() + MAX_SECONDS
        self._left = MAX_SIZE

    def tick(self) -> bool:
        """Raise LimitError if the time is up, else return true."""
        if time.monotonic() > self._deadline:
            raise LimitError(f"the template runs for more than {MAX_SECONDS:g} seconds")
        return True

    def measured(self, value: Any) -> Any:
        """Take the size of a value just made off the budget and return the value."""
        self._left -= 1
        if isinstance(value, str):
            self._left -= len(value)
            value = _tracked(value)
        elif isinstance(value, _CONTAINERS):
            self._left -= len(value) * ELEMENT_SIZE
            _weight(value)
        elif isinstance(value, int) and value.bit_length() > _MAX_INTEGER_BITS:
            raise LimitError(f"the template makes a number of more than {_MAX_INTEGER_BITS} bits")
        if self._left < 0:
            raise LimitError(f"the template makes more than {MAX_SIZE} characters in all")
        return value

    def sliced(self, value: Any) -> Any:
        """Measure a slice; its elements were measured before."""
        if isinstance(value, _CONTAINERS):
            self._left -= len(value) * ELEMENT_SIZE
            return value
        return self.measured(value)

    def text_of(self, value: Any) -> Tracked:
        """Return the text that a value is written as."""
        if isinstance(value, str):
            return value if isinstance(value, Tracked) else data(value)
        if not isinstance(value, _CONTAINERS + _ATOMS):
            raise TypeError(f"a {type(value).__name__} has no text")
        text = data(str(value))
        self.measured(text)
        return text

    def joined(self, values: Iterable[Any]) -> Tracked:
        """Do what the operator `~` does."""
        return self.concat(map(self.text_of, values))

    def concat(self, parts: Iterable[str]) -> Tracked:
        """Join what a macro or block wrote."""
        text = concat(parts)
        self.measured(text)
        return text

    def _measuring(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def measuring(*args: Any, **kwargs: Any) -> Any:
            self.tick()
            return self.measured(function(*args, **kwargs))

        return measuring

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call a function or method for the template."""
        self.tick()
        result = super().call(context, obj, *args, **kwargs)
        if isinstance(result, list):  # the pieces of a split, which are new
            self._left -= _weight(result)
        return self.measured(result)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Do what an arithmetic operator does."""
        self.tick()
        if operator == "%" and isinstance(left, str):
            return self.measured(self._percent(left, right))
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return self.measured(concat((left, right)))
        if operator == "*":
            for factor, count in ((left, right), (right, left)):
                if isinstance(factor, list | tuple) and isinstance(count, int):
                    check_length(len(factor) * count * ELEMENT_SIZE)
                elif isinstance(factor, str) and isinstance(count, int):
                    check_length(len(factor) * count)
        if (
            operator == "**"
            and isinstance(left, int)
            and isinstance(right, int)
            and left.bit_length() * right > _MAX_INTEGER_BITS
        ):
            raise LimitError(f"the template makes a number of more than {_MAX_INTEGER_BITS} bits")
        return self.measured(super().call_binop(context, operator, left, right))

    def _percent(self, template: str, values: Any) -> str:
        self.measured(values)
        if _WIDE_FIELD.search(template):
            raise LimitError(f"a field is wider than {_MAX_WIDTH - 1} characters")
        parts = values if isinstance(values, tuple) else (values,)
        return _formatted(template, template % values, parts)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Return a safe `str.format` if the value is that method of a string."""
        if not isinstance(value, BuiltinMethodType) or value.__name__ != "format":
            return None
        template = value.__self__
        if not isinstance(template, str):
            return None

        def format_(*args: Any, **kwargs: Any) -> str:
            self.measured(args)
            self.measured(kwargs)
            text = _Formatter(self).vformat(template, args, kwargs)
            return _formatted(template, text, (*args, *kwargs.values()))

        return format_

    def getattr(self, obj: Any, attribute: str) -> Any:
        """Return an attribute, or else an element."""
        return super().getattr(_tracked(obj), attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Return an element, or else an attribute."""
        return super().getitem(_tracked(obj), argument)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Tell whether a template may have the attribute."""
        if not super().is_safe_attribute(obj, attr, value):
            return False
        for kind, methods in _METHODS:
            if isinstance(obj, kind):
                return attr in methods
        return isinstance(obj, _OBJECTS)

    def _replace(self, value: Any, old: Any, new: Any, count: int = -1) -> str:
        return self.text_of(value).replace(self.text_of(old), self.text_of(new), count)

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        # Not Jinja's own filter, which escapes for HTML.
        self.measured(value)
        if indent is not None and indent > _MAX_WIDTH:
            raise LimitError(f"the indentation is more than {_MAX_WIDTH} characters")
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )


class _Namespace(Namespace):
    """Jinja's namespace; printed, it doesn't print the namespaces in it."""

    def __repr__(self) -> str:
        return "<Namespace>"


def _tracked(value: Any) -> Any:
    return data(value) if isinstance(value, str) and not isinstance(value, Tracked) else value


def _weight(container: Any) -> int:
    """Count what it takes to walk or print a container: a part that is held twice counts twice."""
    weight = 0
    left = [container]
    while left:
        element = left.pop()
        weight += ELEMENT_SIZE
        if isinstance(element, str):
            weight += len(element)
        elif isinstance(element, dict):
            left += element.keys()
            left += element.values()
        elif isinstance(element, list | tuple):
            left += element
        elif not isinstance(element, _ATOMS):
            raise TypeError(f"a {type(element).__name__} can't be part of a list or dict")
        if weight > MAX_SIZE:
            raise LimitError(f"a list or dict holds more than {MAX_SIZE} characters")
    return weight


def _formatted(template: str, text: str, values: Iterable[Any]) -> Tracked:
    # Where a value went isn't known, so the whole is the template's own or none of it.
    return (
        trusted(text)
        if all(
            isinstance(part, int | float) or (isinstance(part, Tracked) and part.is_trusted)
            for part in (template, *values)
        )
        else data(text)
    )


@pass_environment
def _join(
    environment: ChatEnvironment, value: Iterable[Any], d: Any = "", attribute: Any = None
) -> str:
    if attribute is not None:
        value = map(make_attrgetter(environment, attribute), value)
    return environment.text_of(d).join(map(environment.text_of, value))


def _raise_exception(message: object) -> NoReturn:
    raise TemplateRuntimeError(str(message))


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)
