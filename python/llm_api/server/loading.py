"""Loading the model behind the bound address."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm_api.engine import Loading

if TYPE_CHECKING:
    from llm_api.server.stream import Engine
    from llm_api.templates import PromptTemplate


@dataclass(frozen=True, slots=True)
class Model:
    """What is there after the load."""

    engine: Engine
    prompt_template: PromptTemplate | None


Loader = Callable[[Loading], Model]
"""Loads the model, on a thread of its own, and reports to the object that it is given."""


class ModelLoad:
    """A load on its way. Made and used on the thread of the event loop."""

    def __init__(self, load: Loader) -> None:
        self._load = load
        self._loading = Loading()
        self._done: Future[Model] = Future()
        self._model = asyncio.wrap_future(self._done)
        # A daemon, so that a load that does not heed its cancel keeps nobody from leaving.
        thread = threading.Thread(target=self._run, name="llm-api-load", daemon=True)
        thread.start()

    def _run(self) -> None:
        try:
            self._done.set_result(self._load(self._loading))
        except BaseException as error:  # raised again by whoever waits
            self._done.set_exception(error)

    @property
    def progress(self) -> float:
        """The share of the weights that are loaded, from 0 to 1."""
        return self._loading.progress

    async def wait(self, unless: asyncio.Event) -> Model | None:
        """Wait for the model, or for the event: then None. Raises what the load raises.

        On a terminal a bar shows the progress.
        """
        model = self._model
        event, bar = asyncio.create_task(unless.wait()), asyncio.create_task(self._draw())
        either: set[asyncio.Future[Any]] = {model, event}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            return model.result() if model.done() else None
        finally:
            event.cancel()
            bar.cancel()
            await asyncio.gather(event, bar, return_exceptions=True)

    async def cancel(self, patience: float) -> bool:
        """Stop the load and free what there is; false if it still goes on after `patience` s."""
        self._loading.cancel()
        model = self._model
        await asyncio.wait({model}, timeout=patience)
        if not model.done():
            return False
        if model.exception() is None:
            model.result().engine.close()
        return True

    async def _draw(self) -> None:
        if not sys.stderr.isatty():
            return
        # Imported late: what stands in a log has no bar.
        from llm_api.server.progress import draw  # noqa: PLC0415

        await draw(self._loading)
