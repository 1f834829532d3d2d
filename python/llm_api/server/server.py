"""The app on its listening sockets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from llm_api.api_keys import ApiKeyError
from llm_api.server.connections import LimitedHTTPServer
from llm_api.server.listening import describe
from llm_api.tls import CertificateError

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from llm_api.server.app import App
    from llm_api.tls import Certificate

_log: Final = logging.getLogger("llm_api.server")

_LAST_ENDS_SECONDS: Final = 5.0


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
