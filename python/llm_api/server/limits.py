"""What one client may cost, by name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    body: int = 1 << 20
    """A longer request body is answered 413."""

    discarded_body: int = 16 << 20
    """How much of a refused body is still read, so that its sender gets to see the refusal."""

    headers: int = 32 << 10
    """A longer header block is answered 431; one of eight times this size closes the connection."""

    fields: int = 1000
    """Form fields, query and body together; more are answered 400."""

    header_timeout: float = 30.0
    """From accepting a connection, or the end of its last reply, to the end of the headers."""

    body_timeout: float = 30.0
    """From the end of the headers to the end of the body."""

    connections: int = 1000
    """Open connections; one more is told 503 and closed."""

    unsent: int = 256 << 10
    """Generated text that waits for a slow reader; more cuts the stream."""

    write_stall: float = 30.0
    """A reader that takes nothing for so long loses its stream."""
