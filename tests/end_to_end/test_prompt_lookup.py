"""Replies with drafts by prompt lookup are those without, to the letter."""

from pathlib import Path

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
TOKENS = 200


def replies(model: Path, prompt_lookup: bool) -> tuple[list[str], dict[str, int]]:
    with Engine(model, context=512, prompt_lookup=prompt_lookup) as engine:
        texts = [
            "".join(engine.generate(prompt, tokens=TOKENS, **options))
            for prompt in PROMPTS
            for options in OPTIONS
        ]
        return texts, engine.stats() | {"kernels": engine.info["kernels"] != "off"}


@pytest.mark.timeout(120)
def test_the_text_is_the_same(model_path: Path) -> None:
    texts, stats = replies(model_path, prompt_lookup=True)
    expected, without = replies(model_path, prompt_lookup=False)
    assert texts == expected
    assert without["drafted_tokens"] == 0
    # Without kernels of our own, on this CPU, there are no drafts.
    assert (stats["accepted_tokens"] > 0) == stats["kernels"]
