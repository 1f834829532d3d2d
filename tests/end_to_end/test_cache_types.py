"""Context memory of other types than half precision."""

from __future__ import annotations

import pytest

from llm_api import Engine
from llm_api.errors import ModelLoadError, UnsupportedError

from .program import MODEL

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

GREEDY = {"temperature": 0.0, "penalty_repetition": 1.0, "penalty_frequency": 0.0, "tokens": 16}
PROMPT = "The capital of France is"


@pytest.mark.parametrize("kernels", ["auto", "off"])
@pytest.mark.parametrize(
    ("keys", "values", "attention"),
    [
        ("q8_0", "q8_0", "auto"),
        ("q8_0", "f16", "on"),
        ("f32", "bf16", "off"),
        ("q5_1", "q4_0", "on"),
        ("f16", "f16", "off"),
    ],
)
def test_text_makes_sense(keys, values, attention, kernels):
    with Engine(
        MODEL,
        context=64,
        parallel=1,
        kernels=kernels,
        cache_type_k=keys,
        cache_type_v=values,
        flash_attn=attention,
    ) as engine:
        assert engine.generate(PROMPT, **GREEDY).text().startswith("Paris")


def test_values_are_quantized_only_with_flash_attention():
    with pytest.raises(ModelLoadError, match="quantized V cache requires flash_attn"):
        Engine(MODEL, context=64, cache_type_v="q8_0", flash_attn="off")


def test_a_type_that_does_not_exist():
    with pytest.raises(UnsupportedError, match="no cache type q9: use one of f32, f16, "):
        Engine(MODEL, context=64, cache_type_k="q9")
