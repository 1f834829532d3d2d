"""The one error of prompt templates."""

from typing import Literal

__all__ = ["TemplateError"]


class TemplateError(Exception):
    """A template doesn't parse, or fails while it is executed.

    `partial` holds what an execution had written before it failed.
    """

    def __init__(
        self,
        phase: Literal["parse", "exec"],
        line: int | None,
        reason: str,
        partial: bytes = b"",
    ) -> None:
        super().__init__(phase, line, reason)
        self.phase = phase
        self.line = line
        self.reason = reason
        self.partial = partial

    def __str__(self) -> str:
        where = "" if self.line is None else f"line {self.line}: "
        return f"template: {where}{self.reason}"
