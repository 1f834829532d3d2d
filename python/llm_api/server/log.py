"""Where the log goes: standard error, one line an event."""

import logging
from typing import Final

_BURST: Final = 10
_SECONDS: Final = 60.0


class Sparing(logging.Filter):
    """Lets a few records a minute pass; the next one after that tells how many did not."""

    def __init__(self) -> None:
        super().__init__()
        self._since = 0.0
        self._number = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is logged."""
        if record.created - self._since > _SECONDS:
            left_out = self._number - _BURST
            if left_out > 0:
                record.msg = f"{record.getMessage()} ({left_out} before it are not shown)"
                record.args = ()
            self._since, self._number = record.created, 0
        self._number += 1
        return self._number <= _BURST


_SPARING: Final = Sparing()


def configure() -> None:
    """Send the program's log to standard error; of Tornado's, only what went wrong."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname).1s %(name)s: %(message)s"
    )
    logging.getLogger("tornado").setLevel(logging.WARNING)
    # Failed handshakes above all, of which anybody can make any number.
    logging.getLogger("tornado.general").addFilter(_SPARING)
