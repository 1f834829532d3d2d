"""The endpoints, and what their requests share."""

from __future__ import annotations

import asyncio
import json
import logging
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

from tornado.httputil import HTTPServerConnectionDelegate

from llm_api.limits import Limits
from llm_api.server.chat import chat_reader
from llm_api.server.exchange import Endpoint, Exchange, Request
from llm_api.server.gate import Gate
from llm_api.server.generations import Generations, Reader
from llm_api.server.health import Health
from llm_api.server.ledger import Ledger
from llm_api.server.metrics import CONTENT_TYPE, Metrics
from llm_api.server.peers import PeerWatch
from llm_api.server.predict import predict_reader
from llm_api.server.reply import JSON, Refusal, Reply

if TYPE_CHECKING:
    from tornado.httputil import HTTPConnection

    from llm_api.config import Settings
    from llm_api.server.loading import Model

_log: Final = logging.getLogger("llm_api.server")


class App(HTTPServerConnectionDelegate):
    """Knows which path is served by what. Made and used on the thread of the event loop."""

    def __init__(self, settings: Settings, limits: Limits) -> None:
        self._settings = settings
        self.limits = limits
        self.trusted_proxies = settings.server.trusted_proxies
        self.gate = Gate(settings.server)
        self.ledger = Ledger()
        self.health = Health()
        self.metrics = Metrics(self.health)
        self.peers = PeerWatch(asyncio.get_running_loop())
        self.generations = Generations(limits, self.peers, log_texts=settings.server.log_prompts)
        self._endpoints = [
            _too_early("/predict"),
            _too_early("/chat"),
            Endpoint("/requests/", self._post_mortem),
            Endpoint("/health", self._tell_health, is_public=True),
        ]
        if settings.server.metrics:
            self._endpoints.append(Endpoint("/metrics", self._tell_metrics))

    def use(self, model: Model) -> None:
        """Serve generations from now on."""
        self.health.engine = model.engine
        settings, limits = self._settings, self.limits
        generating = [self._generating("/predict", model, predict_reader(settings, limits))]
        if model.prompt_template is None:
            _log.info("/chat is not served: there is no prompt template")
        else:
            read_chat = chat_reader(settings, limits, model.prompt_template)
            generating.append(self._generating("/chat", model, read_chat))
        self._endpoints[:2] = generating

    def start_request(
        self,
        server_conn: object,  # noqa: ARG002
        request_conn: HTTPConnection,
    ) -> Exchange:
        """Take the next request of a connection."""
        return Exchange(self, request_conn)

    def route(self, path: str) -> Endpoint:
        """Find what serves a path. Raises Refusal if nothing does."""
        for endpoint in self._endpoints:
            name = endpoint.name
            if path == name or (name.endswith("/") and path.startswith(name)):
                return endpoint
        known = ", ".join(endpoint.name for endpoint in self._endpoints)
        raise Refusal(404, f"no such endpoint; there are {known}")

    def _generating(self, name: str, model: Model, read: Reader) -> Endpoint:
        serve = partial(self.generations.serve, model.engine, read)
        return Endpoint(name, serve, generates=True)

    def _post_mortem(self, request: Request, reply: Reply) -> None:
        record = self.ledger.get(request.path.removeprefix("/requests/"))
        if record is None:
            raise Refusal(404, f"no such request among the last {self.ledger.size}")
        reply.send(200, json.dumps(record.as_json()), JSON)
        reply.release()

    def _tell_health(self, _: Request, reply: Reply) -> None:
        status, told = self.health.report()
        reply.send(status, json.dumps(told), JSON)
        reply.release()

    def _tell_metrics(self, _: Request, reply: Reply) -> None:
        reply.send(200, self.metrics.text(), CONTENT_TYPE)
        reply.release()


def _too_early(name: str) -> Endpoint:
    """Stand for an endpoint that needs the model; none gets past the check of the health."""

    def serve(_: Request, __: Reply) -> NoReturn:
        raise AssertionError(name)

    return Endpoint(name, serve, generates=True)
