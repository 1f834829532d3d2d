"""HTTP/2 for the same requests that Tornado serves over HTTP/1."""

from llm_api.server.http2.connection import Http2Connection
from llm_api.server.http2.preface import RewindableStream, is_http2
from llm_api.server.http2.protocol import turn_away
from llm_api.server.http2.stream import Context
from llm_api.server.http2.turns import Turns

__all__ = ["Context", "Http2Connection", "RewindableStream", "Turns", "is_http2", "turn_away"]
