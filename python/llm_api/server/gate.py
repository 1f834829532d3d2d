"""Who is let in, by the head of a request alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llm_api.server.reply import Refusal

if TYPE_CHECKING:
    from tornado.httputil import HTTPHeaders

    from llm_api.api_keys import ApiKeys

_SCHEME: Final = "bearer"
_HOW: Final = "send it as Authorization: Bearer KEY, or as X-Api-Key: KEY"


class Gate:
    """Turns requests away before anything of their body is read."""

    def __init__(self, keys: ApiKeys | None) -> None:
        self.keys = keys

    def check_key(self, headers: HTTPHeaders) -> None:
        """Ask for a key, if there are any. Raises Refusal."""
        if self.keys is None:
            return
        shown = _keys_shown(headers)
        if not any(self.keys.accepts(key) for key in shown):
            reason = "this API key is not known" if shown else "an API key is needed"
            raise Refusal(401, f"{reason}: {_HOW}", {"WWW-Authenticate": "Bearer"})


def _keys_shown(headers: HTTPHeaders) -> list[str]:
    shown = headers.get_list("X-Api-Key")
    for credentials in headers.get_list("Authorization"):
        scheme, _, token = credentials.partition(" ")
        if scheme.lower() == _SCHEME:
            shown.append(token.strip())
    return shown
