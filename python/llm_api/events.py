"""What an engine tells about a request."""

from dataclasses import dataclass
from typing import Literal, Protocol

__all__ = ["End", "EngineState", "FinishReason", "Listener", "Usage"]

EngineState = Literal["ready", "rebuilding", "failed", "closed"]
"""Whether requests are computed: now; soon again, after a failure; never again; never again by
`close`."""

FinishReason = Literal["stop", "length", "stopRegex", "cancelled", "error"]
"""Why a reply ended: by the model, by a limit, by a stop rule, by a cancel, by a failure."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a request used.

    `cached_tokens` of the `prompt_tokens` did not have to be computed. The times follow each
    other: until the prompt was begun, until the first token, until the end. `pauses` counts how
    often the request had to wait in the middle because memory was short.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    queue_seconds: float
    prefill_seconds: float
    decode_seconds: float
    pauses: int


@dataclass(frozen=True, slots=True)
class End:
    """The end of a reply; `error` is set if the finish reason is "error"."""

    finish_reason: FinishReason
    error: str | None
    usage: Usage


class Listener(Protocol):
    """Takes the reply to one request: text as it is made, then the end, once."""

    def on_text(self, text: str) -> None:
        """Take text to append."""

    def on_end(self, end: End) -> None:
        """Take the end; nothing follows."""
