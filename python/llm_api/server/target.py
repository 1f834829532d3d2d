"""The target of a request (RFC 9112, section 3.2)."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from tornado.httputil import HTTPInputError

from llm_api.origins import host_name

_ABSOLUTE: Final = re.compile(r"https?://([^/?#]*)([/?].*)?", re.IGNORECASE | re.DOTALL)


class Target(NamedTuple):
    """What is asked for, and of whom; `authority` is None if the Host header says that."""

    path: str
    query: str
    authority: str | None


def read_target(target: str, version: str) -> Target:
    """Take a target apart. Raises HTTPInputError.

    On HTTP/1 clients may send the whole URL, as they do to proxies.
    """
    authority = None
    if version.startswith("HTTP/1") and (absolute := _ABSOLUTE.fullmatch(target)):
        authority, rest = absolute.groups(default="/")
        target = rest if rest.startswith("/") else f"/{rest}"
        if host_name(authority) is None:
            raise HTTPInputError(f"no host name: {authority[:80]!a}")
    path, _, query = target.partition("?")
    return Target(path, query, authority)
