"""Servers and clients for these tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from llm_api import Engine
from llm_api.config import Settings
from llm_api.limits import Limits

from ..support.raw import Raw
from ..support.scripted import ScriptedEngine
from ..support.serving import PlainTemplate, Served, make_settings

Serve = Callable[..., Served]
Start = Callable[..., tuple[Engine, Served]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers that end with the test."""
    running: list[Served] = []

    def start(
        engine: ScriptedEngine | None = None,
        settings: Settings | None = None,
        template: object = PlainTemplate(),
        limits: Limits | None = None,
    ) -> Served:
        served = Served(
            engine or ScriptedEngine(), settings or make_settings(), template, limits or Limits()
        )
        running.append(served)
        return served

    yield start
    for served in running:
        served.close()


@pytest.fixture
def served(serve: Serve) -> Served:
    """A server with an engine that hands its jobs to the test."""
    return serve()


@pytest.fixture
def client(served: Served) -> Iterator[Raw]:
    with Raw(served.port) as client:
        yield client


@pytest.fixture
def start() -> Iterator[Start]:
    """Start servers on engines with the scripted model described."""
    running: list[tuple[Engine, Served]] = []

    def start(spec: str, **options: int) -> tuple[Engine, Served]:
        engine = Engine.scripted(spec, **options)
        served = Served(engine, make_settings(), PlainTemplate(), Limits())
        running.append((engine, served))
        return engine, served

    yield start
    for engine, served in running:
        served.close()
        engine.close()
