"""The endpoints, and what their requests share."""

from __future__ import annotations

import asyncio
import json
import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from tornado.httputil import HTTPServerConnectionDelegate

from llm_api.limits import Limits
from llm_api.server.chat import chat_reader
from llm_api.server.exchange import Endpoint, Exchange, Request
from llm_api.server.gate import Gate
from llm_api.server.generations import Generations, Reader
from llm_api.server.ledger import Ledger
from llm_api.server.peers import PeerWatch
from llm_api.server.predict import predict_reader
from llm_api.server.reply import JSON, Refusal, Reply

if TYPE_CHECKING:
    from tornado.httputil import HTTPConnection

    from llm_api.config import Settings
    from llm_api.server.stream import Engine
    from llm_api.templates import PromptTemplate

_log: Final = logging.getLogger("llm_api.server")


class App(HTTPServerConnectionDelegate):
    """Knows which path is served by what. Made and used on the thread of the event loop."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        prompt_template: PromptTemplate | None,
        limits: Limits,
    ) -> None:
        self.limits = limits
        self.trusted_proxies = settings.server.trusted_proxies
        self.gate = Gate(settings.server)
        self.ledger = Ledger()
        self.is_closing = False
        """No request is served any more."""
        self.peers = PeerWatch(asyncio.get_running_loop())
        self.generations = Generations(
            engine, limits, self.peers, log_texts=settings.server.log_prompts
        )
        self._endpoints = [self._generating("/predict", predict_reader(settings, limits))]
        if prompt_template is None:
            _log.info("/chat is not served: there is no prompt template")
        else:
            read_chat = chat_reader(settings, limits, prompt_template)
            self._endpoints.append(self._generating("/chat", read_chat))
        self._endpoints += [
            Endpoint("/requests/", self._post_mortem),
            Endpoint("/health", self._health, is_public=True),
        ]

    def start_request(
        self,
        server_conn: object,  # noqa: ARG002
        request_conn: HTTPConnection,
    ) -> Exchange:
        """Take the next request of a connection."""
        return Exchange(self, request_conn)

    def route(self, path: str) -> Endpoint:
        """Find what serves a path. Raises Refusal if nothing does, or nothing any more."""
        if self.is_closing:
            raise Refusal(503, "server is shutting down")
        for endpoint in self._endpoints:
            name = endpoint.name
            if path == name or (name.endswith("/") and path.startswith(name)):
                return endpoint
        known = ", ".join(endpoint.name for endpoint in self._endpoints)
        raise Refusal(404, f"no such endpoint; there are {known}")

    def _generating(self, name: str, read: Reader) -> Endpoint:
        return Endpoint(name, partial(self.generations.serve, read), generates=True)

    def _post_mortem(self, request: Request, reply: Reply) -> None:
        record = self.ledger.get(request.path.removeprefix("/requests/"))
        if record is None:
            raise Refusal(404, f"no such request among the last {self.ledger.size}")
        reply.send(200, json.dumps(record.as_json()), JSON)
        reply.release()

    def _health(self, _: Request, reply: Reply) -> None:
        reply.send(200, json.dumps({"status": "ok"}), JSON)
        reply.release()
