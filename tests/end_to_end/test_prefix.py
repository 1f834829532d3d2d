"""What was computed once is not computed again, as a client sees it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from .program import GREEDY, Program, serve

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

STORY = "The harbour lay quiet under a pale sky while the boats came home. " * 20


@pytest.fixture(scope="module")
def program() -> Iterator[Program]:
    with serve(
        *("-prompt-template-type", "gguf", "-context", "1024", "-parallel", "8", "-pool", "8192")
    ) as program:
        yield program


def test_the_next_turn_of_a_chat_computes_what_is_new(program: Program) -> None:
    messages = [STORY]
    computed = []
    for _ in range(3):
        reply = program.ask("/chat", messages=messages, tokens=12, **GREEDY)
        record = reply.record
        computed.append(record["promptTokens"] - record["cachedTokens"])
        messages += [reply.text, "And then?"]
    assert computed[0] > 200
    assert max(computed[1:]) < 30


def test_a_system_prompt_is_computed_once_for_eight_at_once(program: Program) -> None:
    def ask(n: int) -> int:
        reply = program.ask(
            "/chat", system=f"You are a pirate. {STORY}", messages=f"{n}?", tokens=4, **GREEDY
        )
        assert reply.status == 200
        return reply.record["promptTokens"] - reply.record["cachedTokens"]

    with ThreadPoolExecutor(8) as pool:
        computed = sorted(pool.map(ask, range(8)))
    assert max(computed[:7]) < 60
    assert computed[7] > 200
