"""From binding the address to the last reply."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Final, NoReturn

from llm_api.server import log
from llm_api.server.accepting import allow_connections
from llm_api.server.listening import bind
from llm_api.server.loading import ModelLoad
from llm_api.server.systemd import ServiceManager, take_sockets

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from llm_api.config import Settings
    from llm_api.server.app import App
    from llm_api.server.loading import Loader
    from llm_api.server.server import Server

_log: Final = logging.getLogger("llm_api.server")

_LOAD_STOPS_SECONDS: Final = 2.0


def serve(settings: Settings, load: Loader) -> int:
    """Serve until a signal says otherwise; return the exit status.

    The address is bound first, and its health served while the model is loaded. SIGTERM or
    SIGINT lets running requests end, for `shutdown_timeout` seconds at most, and gives 0. A
    second one breaks them off and gives 1. During the load, either ends all at once.

    Raises ServeError, and what `load` raises.
    """
    log.configure()
    allow_connections(settings.server.limits.connections)
    manager = ServiceManager()
    # What systemd has bound for us stands in for the address.
    sockets = take_sockets() or bind(settings.server.address)
    try:
        return asyncio.run(_serve(settings, load, sockets, manager))
    finally:
        for listening in sockets:
            listening.close()


async def _serve(
    settings: Settings, load: Loader, sockets: Sequence[socket.socket], manager: ServiceManager
) -> int:
    loop = asyncio.get_running_loop()
    first, second = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        if not first.is_set():
            manager.stopping()
        (second if first.is_set() else first).set()

    def on_hang_up() -> None:
        manager.reloading()
        server.reload()
        manager.reloaded()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    # Before anybody can know that we are here, and also where there is nothing to read: the signal
    # would end the process. One that has come since its start (__main__.py) is heeded now.
    loop.add_signal_handler(signal.SIGHUP, on_hang_up)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
    model_load = ModelLoad(load)
    try:
        app, server = _open(settings, sockets)
    except BaseException:
        await model_load.cancel(_LOAD_STOPS_SECONDS)
        raise
    app.health.load = model_load
    manager.loading()
    try:
        model = await model_load.wait(unless=first)
    except BaseException:
        await server.close()
        raise
    if model is None:
        _log.info("shutting down: the model was still being loaded")
        has_stopped = await model_load.cancel(_LOAD_STOPS_SECONDS)
        await server.close()
        if not has_stopped:
            _leave_behind()
        return 0
    try:
        model.engine.attach(loop)
        app.use(model)
        _log.info("the model is loaded: ready")
        manager.ready()
        return await _serve_until(first, second, server, settings.server.shutdown_timeout)
    finally:
        model.engine.close()


def _open(settings: Settings, sockets: Sequence[socket.socket]) -> tuple[App, Server]:
    # Imported late: the model is on its way meanwhile, and small ones take little longer.
    from llm_api.server.app import App  # noqa: PLC0415
    from llm_api.server.server import Server  # noqa: PLC0415

    app = App(settings, settings.server.limits)
    return app, Server(app, sockets, settings.server.certificate)


def _leave_behind() -> NoReturn:
    """End with a thread somewhere in the system or in llama.cpp, which must not be torn down."""
    _log.warning("the load does not end, and is left behind")
    sys.stdout.flush()
    os._exit(0)


async def _serve_until(
    first: asyncio.Event, second: asyncio.Event, server: Server, timeout: float
) -> int:
    loop = asyncio.get_running_loop()
    await first.wait()
    _log.info("shutting down: running requests have %gs", timeout)
    drained = loop.create_task(server.drain(timeout))
    hurried = loop.create_task(second.wait())
    await asyncio.wait({drained, hurried}, return_when=asyncio.FIRST_COMPLETED)
    drained.cancel()
    hurried.cancel()
    await server.close()
    return 1 if second.is_set() else 0
