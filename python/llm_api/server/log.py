"""Where the log goes: standard error, one line an event."""

import logging


def configure() -> None:
    """Send the program's log to standard error; of Tornado's, only what went wrong."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname).1s %(name)s: %(message)s"
    )
    logging.getLogger("tornado").setLevel(logging.WARNING)
