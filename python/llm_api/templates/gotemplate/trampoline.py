"""Recursion without the interpreter's stack.

Templates nest as deep as their authors please, and Python's recursion limit must not show.  A
function that would call itself is written as a generator: it yields the generator of the inner
call, and is sent that call's result.
"""

from collections.abc import Generator
from typing import Any, TypeVar

__all__ = ["Step", "run"]

T = TypeVar("T")
Step = Generator["Step[Any]", Any, T]


def run(first: Step[T]) -> T:
    """Run a generator, and those it yields, to its result."""
    stack: list[Step[Any]] = [first]
    result: Any = None
    while stack:
        try:
            inner = stack[-1].send(result)
        except StopIteration as stop:
            stack.pop()
            result = stop.value
        else:
            stack.append(inner)
            result = None
    return result  # type: ignore[no-any-return]
