"""The progress of the load, on a terminal."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NoReturn

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

if TYPE_CHECKING:
    from llm_api.engine import Loading

_LOOK_SECONDS: Final = 0.1
"""How often the bar is drawn."""

_BAR_FORMAT: Final = "{l_bar}{bar}| {elapsed}"


async def draw(loading: Loading) -> NoReturn:
    """Draw a bar until cancelled; log lines appear above it."""
    with (
        logging_redirect_tqdm(),
        _Bar(desc="loading the model", total=1.0, bar_format=_BAR_FORMAT, leave=False) as bar,
    ):
        while True:
            bar.n = loading.progress
            bar.refresh()
            await asyncio.sleep(_LOOK_SECONDS)


class _Bar(tqdm):  # type: ignore[misc]  # it has no types
    """Drawn by us alone; tqdm's own thread would stay after it."""

    monitor_interval = 0
