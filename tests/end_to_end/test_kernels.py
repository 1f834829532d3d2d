"""Kernels of our own that cannot be used: llama.cpp's compute, and the log says why."""

from __future__ import annotations

import pytest

from .program import PAGES, serve

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

STORY = PAGES | {"tokens": 16}


@pytest.fixture(scope="module")
def text_without() -> str:
    with serve("-kernels", "off") as program:
        program.wait_for_log(" I .*: kernels: off$")
        assert not [line for line in program.log if "kernels not used" in line]
        return program.ask("/predict", **STORY).text


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("LLM_API_FAULT", "kernels", "LLM_API_FAULT=kernels"),
        ("LLM_API_KERNELS", "fast", "LLM_API_KERNELS=fast: use avx2, avx-vnni or avx512-vnni"),
    ],
    ids=["self-test", "tier"],
)
def test_what_cannot_be_used_is_said_once(
    text_without: str, variable: str, value: str, reason: str
) -> None:
    with serve(**{variable: value}) as program:
        program.wait_for_log(" I .*: kernels: not used$")
        reply = program.ask("/predict", **STORY)
        assert (reply.status, reply.text) == (200, text_without)
        warnings = [line for line in program.log if "kernels not used" in line]
    assert len(warnings) == 1
    assert warnings[0].endswith(f" W llm_api.engine: kernels not used: {reason}\n")
