"""Time on the event loop, shared by the connections whose clients send a lot."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

_SECONDS: Final = 0.001


class Turns:
    """Lets one connection after the other handle frames, for 1 ms of each turn of the loop.

    The rest of the turn is for everybody else. Who could not finish waits in a line of its own,
    and the lines are served alternately: a small request does not wait for all that is big.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_taken = False
        self._next: deque[asyncio.Future[None]] = deque()
        self._other: deque[asyncio.Future[None]] = deque()
        self._new, self._unfinished = self._next, self._other
        self._over_at: float | None = None

    async def begin(self, *, is_unfinished: bool) -> None:
        """Wait for a turn; `end` it afterwards."""
        if not self._is_taken:
            self._is_taken = True
            return
        turn = self._loop.create_future()
        (self._unfinished if is_unfinished else self._new).append(turn)
        await turn

    def is_over(self) -> bool:
        """Tell whether the time is used up."""
        now = self._loop.time()
        if self._over_at is None:
            self._over_at = now + _SECONDS
            self._loop.call_soon(self._renew)
        return now > self._over_at

    async def end(self) -> None:
        """Let the next one begin: in the next turn of the loop, if this one's time is used up."""
        if self.is_over():
            await asyncio.sleep(0)
        self._next, self._other = self._other, self._next
        for line in (self._next, self._other):
            while line:
                turn = line.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self._is_taken = False

    def _renew(self) -> None:
        self._over_at = None
