"""Header blocks that do not come to their end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class HeaderTimer:
    """Counts the time of each header block, from its first bytes to its end.

    No other frame may come in between, so a connection whose block does not end is stuck.
    """

    def __init__(self, seconds: float, on_late: Callable[[], None]) -> None:
        self._seconds = seconds
        self._on_late = on_late
        self._block: int | None = None
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, block: int | None) -> None:
        """Wait for the end of this block, by its number; None if all that began have ended."""
        if block == self._block:
            return
        self._block = block
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if block is not None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._on_late)
