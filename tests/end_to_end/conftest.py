"""The demo model, and servers on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llm_api import Engine
from llm_api.models import ModelNameError, resolve_model

from .program import MODEL, Program, serve


@pytest.fixture(scope="session")
def model_path() -> Path:
    try:
        return resolve_model(MODEL)
    except ModelNameError as error:
        pytest.skip(f"{error}; make demo-model brings it")


@pytest.fixture(scope="session")
def program(model_path: Path) -> Iterator[Program]:
    """A server for all tests that need nothing else of it."""
    with serve("-prompt-template-type", "gguf", "-queue", "32") as program:
        yield program


@pytest.fixture(scope="session")
def engine(model_path: Path) -> Iterator[Engine]:
    """The model in the test's own process."""
    with Engine(model_path, parallel=2) as engine:
        yield engine
