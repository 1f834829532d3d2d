"""A server on a thread of the test's own process, on a real socket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from llm_api.address import Address, UnixAddress
from llm_api.api_keys import ApiKeys
from llm_api.config import ChatSettings, EngineSettings, ServerSettings, Settings
from llm_api.conversation import Conversation
from llm_api.limits import Limits
from llm_api.options import DEFAULTS
from llm_api.prompt import Prompt, Span, with_reply_prefix
from llm_api.proxies import TrustedProxies
from llm_api.server.app import App
from llm_api.server.listening import bind
from llm_api.server.loading import Model
from llm_api.server.server import Server
from llm_api.tls import Certificate

from .scripted import SECONDS

T = TypeVar("T")

HOSTS = frozenset({"test", "x", "a"})
"""The names that the clients of these tests use for the server."""

NO_PROXIES = TrustedProxies()


class PlainTemplate:
    """Renders a conversation so that a test can read it back: ``system|user|assistant|user``."""

    def __init__(self, needs_system_prompt: bool = False) -> None:
        self.needs_system_prompt = needs_system_prompt

    def render(self, conversation: Conversation, reply_prefix: str = "") -> Prompt:
        texts = (message.text for message in conversation.all_messages)
        return with_reply_prefix((Span("|".join(texts), True), Span("\n", False)), reply_prefix)


def make_settings(
    *,
    system_prompt: str = "",
    log_prompts: bool = False,
    shutdown_timeout: float = 30.0,
    certificate: Certificate | None = None,
    api_keys: ApiKeys | None = None,
    address: Address | UnixAddress | None = None,
    allowed_hosts: frozenset[str] = HOSTS,
    cors_origins: frozenset[str] = frozenset(),
    trusted_proxies: TrustedProxies = NO_PROXIES,
) -> Settings:
    return Settings(
        model="scripted",
        model_path=Path("scripted"),
        server=ServerSettings(
            address=address or Address("127.0.0.1", 0),
            shutdown_timeout=shutdown_timeout,
            log_prompts=log_prompts,
            certificate=certificate,
            trusted_proxies=trusted_proxies,
            api_keys=api_keys,
            allowed_hosts=allowed_hosts,
            cors_origins=cors_origins,
        ),
        engine=EngineSettings(
            context=512,
            pool=2048,
            parallel=4,
            queue=16,
            threads=1,
            kernels="auto",
            prompt_lookup=True,
            gpu_layers=0,
            cache_type_k="f16",
            cache_type_v="f16",
            flash_attn="auto",
            rope_freq_base=0.0,
            rope_freq_scale=0.0,
        ),
        chat=ChatSettings(system_prompt=system_prompt, template=None, model_template=False),
        generation=DEFAULTS,
        effective={},
    )


class Served:
    """A running server; `port` is where, `engine` what it was given."""

    def __init__(
        self,
        engine: Any,
        settings: Settings,
        template: object,
        limits: Limits,
    ) -> None:
        self.engine = engine
        self._sockets = bind(settings.server.address)
        name = self._sockets[0].getsockname()
        self.port: Any = name if isinstance(name, str) else name[1]
        """Or the path of a Unix socket."""
        self.server: Server
        self.app: App
        self._make = (settings, limits)
        self._model = Model(engine, template)  # type: ignore[arg-type]
        self._certificate = settings.server.certificate
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))
        self._thread.start()
        assert self._started.wait(SECONDS)

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.engine.attach(self._loop)
        self.app = App(*self._make)
        self.app.use(self._model)
        self.server = Server(self.app, self._sockets, self._certificate)
        self._started.set()
        await self._stop.wait()
        await self.server.close()

    def run(self, make: Callable[[], Awaitable[T]]) -> T:
        """Run a coroutine on the server's loop and wait for its result."""

        async def call() -> T:
            return await make()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(SECONDS)

    async def close_connections(self) -> None:
        """Close all connections, as a crash would."""
        await self.server._http.close_all_connections()

    async def wait_for_no_http1(self) -> None:
        """Wait until all HTTP/1 connections are done with."""
        while self.server._http._connections:
            await asyncio.sleep(0.01)

    async def wait_for_no_http2(self) -> None:
        """Wait until all HTTP/2 connections are closed."""
        while self.server._http._http2:
            await asyncio.sleep(0.01)

    def settle(self) -> None:
        """Wait until the server has done what it does after the replies sent so far."""
        self.run(lambda: asyncio.sleep(0))

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()
