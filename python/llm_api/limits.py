"""What one client may cost, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["LIMIT_FLAGS", "Limits", "limits_from"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    body: int = 1 << 20
    """A longer request body is answered 413."""

    discarded_body: int = 16 << 20
    """How much of a refused body is still read, so that its sender gets to see the refusal."""

    headers: int = 32 << 10
    """A longer header block is answered 431; with eight times this size the connection closes."""

    fields: int = 1000
    """Form fields, query and body together; more are answered 400."""

    prompt: int = 1 << 20
    """A longer prompt, as the template has made it, is answered 413."""

    per_client: int = 0
    """Requests at work or waiting from one address, 0 = any; one more is answered 429."""

    header_timeout: float = 30.0
    """From accepting a connection, or the first byte of a request, to the end of the headers."""

    body_timeout: float = 30.0
    """From the end of the headers to the end of the body."""

    idle_timeout: float = 75.0
    """From the end of the last reply to the first byte of the next request."""

    connections: int = 1000
    """Open connections; one more is told 503 and closed."""

    unsent: int = 256 << 10
    """Generated text that waits for a slow reader; more cuts the stream."""

    write_stall: float = 30.0
    """A reader that takes nothing for so long loses its stream."""

    streams: int = 100
    """Open requests of one HTTP/2 connection; one more is refused, and may be sent again."""

    bodies: int = 4 << 20
    """Unfinished request bodies of one HTTP/2 connection; who brings more is answered 503."""

    header_block: int = 64 << 10
    """A longer header block, packed or unpacked, closes an HTTP/2 connection."""

    header_frames: int = 16
    """Frames that one HTTP/2 header block may come in; more close the connection."""

    idle_frames: int = 1000
    """HTTP/2 frames at once that ask for work and bring next to nothing; more close it."""

    idle_frames_per_second: float = 100.0
    """How fast a client may send such frames for ever."""

    resets: int = 500
    """HTTP/2 requests at once that end before their replies do; more close the connection."""

    resets_per_second: float = 50.0
    """How fast a client may give requests up for ever."""


_BODIES: Final = 4
"""Bodies of full size that one HTTP/2 connection may have unfinished."""

LIMIT_FLAGS: Final[Mapping[str, str]] = {
    "max-connections": "connections",
    "max-streams": "streams",
    "max-per-client": "per_client",
    "max-header-bytes": "headers",
    "max-body-bytes": "body",
    "max-fields": "fields",
    "max-prompt-bytes": "prompt",
    "header-timeout": "header_timeout",
    "body-timeout": "body_timeout",
    "idle-timeout": "idle_timeout",
    "stall-timeout": "write_stall",
}
"""The flags of those limits that have one."""


def limits_from(values: Mapping[str, Any]) -> Limits:
    """Take the limits out of the checked values of all flags."""
    given = {name: values[flag] for flag, name in LIMIT_FLAGS.items()}
    return Limits(
        **given,
        bodies=_BODIES * given["body"],
        # Packed, or spread over fields that we count without their overhead.
        header_block=2 * given["headers"],
    )
