"""Who is let in, by the head of a request alone."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from llm_api.address import Address
from llm_api.origins import host_name, is_loopback
from llm_api.server import wire
from llm_api.server.reply import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tornado.httputil import HTTPHeaders, HTTPServerRequest

    from llm_api.config import ServerSettings

_INTERNET: Final = (socket.AF_INET, socket.AF_INET6)
_OUR_OWN: Final = ("same-origin", "none")
"""Sec-Fetch-Site where it is no other page that asks, but ours or the user."""
_SCHEME: Final = "bearer"
_HOW: Final = "send it as Authorization: Bearer KEY, or as X-Api-Key: KEY"
_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, X-Api-Key",
    "Access-Control-Max-Age": "600",
}


class Gate:
    """Turns requests away before anything of their body is read.

    Against web pages: a browser lets any page send forms to any address, and a page whose name
    its owner lets point to 127.0.0.1 may even read the replies (DNS rebinding). But it always
    tells the name that it was given, and whose page asks.
    """

    def __init__(self, server: ServerSettings) -> None:
        self.keys = server.api_keys
        address = server.address
        self._bound_name = address.host.lower() if isinstance(address, Address) else ""
        self._allowed_hosts = server.allowed_hosts
        self._origins = server.cors_origins
        self._has_known_hosts = bool(self._allowed_hosts)

    def listen_on(self, sockets: Iterable[socket.socket]) -> None:
        """Ask for known host names if no other machine can reach these sockets."""
        addresses = [
            str(listening.getsockname()[0])
            for listening in sockets
            if listening.family in _INTERNET
        ]
        if addresses and all(is_loopback(address) for address in addresses):
            self._has_known_hosts = True

    def check_page(self, request: HTTPServerRequest) -> Mapping[str, str]:
        """Refuse what a web page has asked for that may not; return headers for the reply.

        Raises Refusal, and also answers a browser's question whether a page may.
        """
        assert request.connection is not None
        # Nobody's DNS points to a Unix socket; there names are asked for only where some are given.
        if self._has_known_hosts and (self._allowed_hosts or not wire.is_unix(request.connection)):
            self._check_host(request.host)
        origin = request.headers.get("Origin")
        site = request.headers.get("Sec-Fetch-Site", "none")
        for_replies = {"Vary": "Origin"} if self._origins else {}
        if origin is None:
            if site not in _OUR_OWN:
                raise Refusal(
                    403,
                    "requests made by web pages of other sites are not served: "
                    "start the server with -cors-origins, and let the page send its Origin",
                )
        elif origin.lower() in self._origins:
            for_replies |= {
                "Access-Control-Allow-Origin": origin,
                "Access-Control-Expose-Headers": "X-Request-Id",
            }
            is_preflight = "Access-Control-Request-Method" in request.headers
            if is_preflight and request.method == "OPTIONS":
                raise Refusal(204, "", for_replies | _PREFLIGHT)
        elif site != "same-origin" and origin.lower() != _own_origin(request):
            raise Refusal(
                403,
                f"requests made by web pages of {origin[:80]!a} are not served: "
                "start the server with that origin in -cors-origins",
            )
        return for_replies

    def check_key(self, headers: HTTPHeaders) -> None:
        """Ask for a key, if there are any. Raises Refusal."""
        if self.keys is None:
            return
        shown = _keys_shown(headers)
        if not any(self.keys.accepts(key) for key in shown):
            reason = "this API key is not known" if shown else "an API key is needed"
            raise Refusal(401, f"{reason}: {_HOW}", {"WWW-Authenticate": "Bearer"})

    def _check_host(self, host: str) -> None:
        name = host_name(host)
        is_known = name is not None and (
            name in ("localhost", self._bound_name)
            or name in self._allowed_hosts
            or is_loopback(name)
        )
        if not is_known:
            raise Refusal(
                403,
                f"the host name {host[:80]!a} is not known here: "
                "use localhost, or start the server with that name in -allowed-hosts",
            )


def _own_origin(request: HTTPServerRequest) -> str:
    return f"{request.protocol}://{request.host}".lower()


def _keys_shown(headers: HTTPHeaders) -> list[str]:
    shown = [*headers.get_list("X-Api-Key")]
    for credentials in headers.get_list("Authorization"):
        scheme, _, token = credentials.partition(" ")
        if scheme.lower() == _SCHEME:
            shown.append(token.strip())
    return shown
