"""From binding the address to the last reply."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Final, NoReturn

from llm_api.api_keys import ApiKeyError
from llm_api.server import log
from llm_api.server.accepting import allow_connections
from llm_api.server.app import App
from llm_api.server.connections import LimitedHTTPServer
from llm_api.server.listening import bind, describe
from llm_api.server.loading import ModelLoad
from llm_api.server.systemd import ServiceManager, take_sockets
from llm_api.tls import CertificateError

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from llm_api.config import Settings
    from llm_api.server.loading import Loader
    from llm_api.tls import Certificate

_log: Final = logging.getLogger("llm_api.server")

_LAST_ENDS_SECONDS: Final = 5.0
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


class Server:
    """One app on its listening sockets. Made and used on the thread of the event loop."""

    def __init__(
        self, app: App, sockets: Sequence[socket.socket], certificate: Certificate | None = None
    ) -> None:
        self._app = app
        self._certificate = certificate
        context = certificate.load() if certificate else None
        self._http = LimitedHTTPServer(
            app, limits=app.limits, on_refusal=app.metrics.note_refusal, ssl_options=context
        )
        app.gate.listen_on(sockets)
        self._http.add_sockets(sockets)
        for listening in sockets:
            _log.info("listening on %s", describe(listening, is_secure=certificate is not None))

    def reload(self) -> None:
        """Read the certificate and the API keys again; of what is bad, the old stays in use."""
        keys = self._app.gate.keys
        if self._certificate is not None:
            self._reload_certificate(self._certificate)
        if keys is not None and keys.can_reload:
            try:
                keys.reload()
            except ApiKeyError as error:
                _log.error("the old API keys stay in use: %s", error)
            else:
                _log.info("the API keys have been read again: %d", len(keys))

    def _reload_certificate(self, certificate: Certificate) -> None:
        try:
            self._http.ssl_options = certificate.load()
        except CertificateError as error:
            _log.error("the old certificate stays in use: %s", error)
        else:
            _log.info("the certificate has been read again")

    async def drain(self, timeout: float) -> None:
        """Serve no new requests, and wait for the running ones to end."""
        self._http.stop()
        self._app.health.is_draining = True
        self._http.shut_down_http2()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._app.generations.wait_for_all(), timeout)

    async def close(self) -> None:
        """Break off what still runs, and close all connections."""
        self._http.stop()
        self._app.health.is_draining = True
        self._app.generations.cut_all()
        # The engine still reports their ends; the log should have them.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._app.generations.wait_for_all(), _LAST_ENDS_SECONDS)
        await self._http.close_all_connections()
        self._app.peers.close()


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
    certificate = settings.server.certificate
    # Before anybody can know that we are here, and also where there is nothing to read: the signal
    # would end the process.
    loop.add_signal_handler(signal.SIGHUP, on_hang_up)
    app = App(settings, settings.server.limits)
    server = Server(app, sockets, certificate)
    manager.loading()
    app.health.load = model_load = ModelLoad(load)
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
