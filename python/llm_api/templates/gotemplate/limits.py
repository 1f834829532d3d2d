"""What one execution of a template may use.

The bounds are far above what a prompt needs.  They make sure that every template ends, and soon:
within seconds, and within memory a server can spare.
"""

__all__ = [
    "MAX_OUTPUT",
    "MAX_STEPS",
    "MAX_TEMPLATE_DEPTH",
    "MAX_TEXT",
    "MAX_VALUE_DEPTH",
    "Budget",
    "ExecError",
]

MAX_STEPS = 1_000_000
"""Commands, loop iterations and printed values."""

MAX_TEXT = 64 << 20
"""Bytes of all strings made, the output and the results of functions together."""

MAX_OUTPUT = 16 << 20
"""Bytes of the output."""

MAX_TEMPLATE_DEPTH = 10_000
"""Template calls inside one another."""

MAX_VALUE_DEPTH = 100
"""Lists and maps inside one another, where a value is printed."""


class ExecError(Exception):
    """An execution fails; the text is the reason, the executor adds the line."""


class Budget:
    """Counts down what is left of the bounds of one execution."""

    __slots__ = ("_steps", "_text")

    def __init__(self) -> None:
        self._steps = MAX_STEPS
        self._text = MAX_TEXT

    def spend(self, steps: int = 1) -> None:
        """Account for work done."""
        self._steps -= steps
        if self._steps < 0:
            raise ExecError(f"the template takes more than {MAX_STEPS} steps")

    def allocate(self, size: int) -> None:
        """Account for a string of `size` bytes, before it is made."""
        self._text -= size
        if self._text < 0:
            raise ExecError(f"the template makes more than {MAX_TEXT} bytes of text")
