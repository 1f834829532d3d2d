"""Every example of the documents runs as written, on the demo model."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .end_to_end.program import Program, serve

ROOT = Path(__file__).parents[1]

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]


def blocks(name: str, language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", (ROOT / name).read_text(), re.DOTALL | re.M)
    assert found, f"{name} has no {language} examples"
    return found


@pytest.fixture(scope="module")
def demo() -> Iterator[Program]:
    """As `make run` serves it."""
    with serve("-context", "2048", "-prompt-template-type", "gguf") as program:
        yield program


@pytest.mark.parametrize("block", blocks("README.md", "sh"))
def test_curl_examples(demo: Program, block: str) -> None:
    script = block.replace("localhost:8080", f"localhost:{demo.port}").replace(
        "curl ", "curl -sS --fail-with-body "
    )
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.strip()


PYTHON = blocks("README.md", "python") + blocks("docs/python.md", "python")


@pytest.mark.parametrize("block", PYTHON)
def test_python_examples(block: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", block], capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()
