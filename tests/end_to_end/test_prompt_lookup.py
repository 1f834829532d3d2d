"""Replies with drafts by prompt lookup are those without, to the letter."""

from pathlib import Path
from typing import Literal

import pytest

from llm_api import Engine

pytestmark = pytest.mark.model

TEXT = (
    "The harbour lay quiet under a pale sky while the boats came home one after another, and the "
    "men on the pier counted crates of fish, wrote numbers into a book and spoke of the weather. "
)
PROMPTS = (
    f"Repeat this text exactly, but write 'green' for 'pale':\n{TEXT}\n\nThe text:\n",
    "def add(a, b):\n    return a + b\n\ndef sub(a, b):\n    return a - b\n\ndef mul(a, b):",
    "Write an essay about bees.\nBees are",
)
OPTIONS: tuple[dict[str, object], ...] = (
    {"temperature": 0, "penalty_repetition": 1, "penalty_frequency": 0},
    {"temperature": 0.8, "seed": 5, "penalty_repetition": 1.02},
)
Asked = tuple[str, int, dict[str, object]]
"""A prompt, tokens, and options."""

TEXTS: list[Asked] = [
    *((prompt, 200, options) for prompt in PROMPTS for options in OPTIONS),
    # From 512 cells on, llama.cpp by itself would share them out among threads.
    (f"{TEXT * 14}\nOnce more:\n{TEXT[:60]}", 300, OPTIONS[0]),
]

# Greedy ones, and with them any difference, part where two tokens are nearly as likely.
FILLING: list[Asked] = [
    (f"{n}. {TEXT}\nWith {n} for the:\n{n}.", 90, OPTIONS[0]) for n in range(12)
]


def replies(
    model: Path, kernels: Literal["auto", "off"], context: int, asked: list[Asked]
) -> list[tuple[list[str], dict[str, int]]]:
    """Return the texts and the engine's counts, with prompt lookup and without."""
    both = []
    for prompt_lookup in (True, False):
        # Fewer threads than heads: with more there are no drafts with llama.cpp's kernels.
        with Engine(
            model, context=context, threads=2, kernels=kernels, prompt_lookup=prompt_lookup
        ) as engine:
            texts = [
                "".join(engine.generate(prompt, tokens=tokens, **options))
                for prompt, tokens, options in asked
            ]
            both.append((texts, engine.stats()))
    return both


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_the_text_is_the_same_in_a_pool_full_of_kept_texts(
    model_path: Path, kernels: Literal["auto", "off"]
) -> None:
    (texts, stats), (expected, without) = replies(model_path, kernels, 320, FILLING)
    assert texts == expected
    assert stats["cells_evicted"] == without["cells_evicted"] > 500
    assert stats["accepted_tokens"] > 100


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_the_text_is_the_same(model_path: Path, kernels: Literal["auto", "off"]) -> None:
    (texts, stats), (expected, without) = replies(model_path, kernels, 1024, TEXTS)
    assert texts == expected
    assert without["drafted_tokens"] == 0
    assert stats["accepted_tokens"] > 100
    assert stats["decodes"] < without["decodes"] - 100
