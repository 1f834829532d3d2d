"""What became of each request: one log line for all, a post-mortem by id for generations."""

from __future__ import annotations

import logging
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from llm_api.events import Usage

_log: Final = logging.getLogger("llm_api.requests")


@dataclass(slots=True)
class Record:
    """One request, without its texts."""

    endpoint: str = "-"
    """The path of an endpoint; a path that nobody serves is not repeated."""
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    started_at: float = field(default_factory=time.time)
    client: str = "-"
    """The address of whom it is for, where that is known."""
    status: int | None = None
    """None while the request is in progress, and where its client left before any status."""
    finish_reason: str | None = None
    """None while the request is in progress, and for endpoints that generate nothing."""
    usage: Usage | None = None
    refusal: str | None = None
    """The reason of a refusal, in one word."""
    abort_cause: str | None = None
    """Why the reply was broken off, in one word."""
    seconds: float | None = None
    """From the request's headers to the end of its reply; None while in progress."""
    on_close: Callable[[Record], None] | None = None
    """Told when the request is over."""
    _clock: float = field(default_factory=time.monotonic)

    def close(self) -> None:
        """Note that the request is over, and log it."""
        self.seconds = time.monotonic() - self._clock
        _log.info("%s", self._line())
        if self.on_close is not None:
            self.on_close(self)

    def as_json(self) -> dict[str, object]:
        """Tell all there is, for whoever has the id."""
        started = datetime.fromtimestamp(self.started_at, UTC)
        told: dict[str, object] = {
            "id": self.id,
            "endpoint": self.endpoint,
            "state": "running" if self.seconds is None else "finished",
            "status": self.status,
            "finishReason": self.finish_reason,
            "startedAt": started.isoformat(timespec="milliseconds"),
            "seconds": _rounded(self.seconds),
        }
        if self.usage is not None:
            usage = self.usage
            told |= {
                "promptTokens": usage.prompt_tokens,
                "cachedTokens": usage.cached_tokens,
                "completionTokens": usage.completion_tokens,
                "queueSeconds": _rounded(usage.queue_seconds),
                "prefillSeconds": _rounded(usage.prefill_seconds),
                "decodeSeconds": _rounded(usage.decode_seconds),
                "pauses": usage.pauses,
            }
        return told

    def _line(self) -> str:
        status = "-" if self.status is None else self.status
        line = f"{self.id} {self.endpoint} {status}"
        if self.finish_reason is not None:
            line += f" {self.finish_reason}"
        if self.usage is not None:
            usage = self.usage
            line += (
                f" prompt={usage.prompt_tokens} cached={usage.cached_tokens}"
                f" completion={usage.completion_tokens} queue={usage.queue_seconds:.3f}s"
                f" prefill={usage.prefill_seconds:.3f}s decode={usage.decode_seconds:.3f}s"
            )
            if usage.pauses:
                line += f" pauses={usage.pauses}"
        return f"{line} total={self.seconds:.3f}s client={self.client}"


class Ledger:
    """The last records, by id."""

    def __init__(self, size: int = 1000) -> None:
        self.size = size
        """How many there are at most."""
        self._records: OrderedDict[str, Record] = OrderedDict()

    def add(self, record: Record) -> None:
        """Keep a record until `size` newer ones have come."""
        self._records[record.id] = record
        if len(self._records) > self.size:
            self._records.popitem(last=False)

    def get(self, request_id: str) -> Record | None:
        """Return the record of an id, if it is still there."""
        return self._records.get(request_id)


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
