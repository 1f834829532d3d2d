"""Time on the event loop, shared by the connections whose clients send a lot."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import TracebackType

_SECONDS: Final = 0.002


class Turns:
    """Lets one connection after the other handle frames, for 2 ms of each turn of the loop.

    The rest of the turn is for everybody else. A connection that is not done goes to the end of
    the line, so that none waits for more than a piece of another's work.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._line = asyncio.Lock()
        self._over_at: float | None = None

    def is_over(self) -> bool:
        """Tell whether this turn's time is used up."""
        now = self._loop.time()
        if self._over_at is None:
            self._over_at = now + _SECONDS
            self._loop.call_soon(self._renew)
        return now > self._over_at

    async def __aenter__(self) -> None:
        await self._line.acquire()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if self.is_over():
            await asyncio.sleep(0)
        self._line.release()

    def _renew(self) -> None:
        self._over_at = None
