"""Many requests at once: each gets what it would get alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from os.path import commonprefix

import pytest

from llm_api import Engine

from .program import GREEDY, Program, Reply, serve

pytestmark = pytest.mark.model

NEAR_TIE = 0.6
"""A lead of the likeliest token, in units of the logits, that the rounding of another batch shape
may turn; rust/engine/tests/llama_batching.rs looks at every one."""

SUBJECTS = (
    "apples bees clouds deserts eagles forests gold horses islands jade kites lions mountains "
    "nuts oceans pearls queens rivers stars trees uranium violins whales xylophones yachts zebras "
    "bread coffee dancing engines football glass"
).split()


def ask(program: Program, subject: str, tokens: int) -> Reply:
    return program.ask("/chat", messages=f"Tell me about {subject}.", tokens=tokens, **GREEDY)


def ask_at_once(program: Program, subjects: Sequence[str], tokens: int) -> list[Reply]:
    with ThreadPoolExecutor(len(subjects)) as pool:
        return list(pool.map(lambda subject: ask(program, subject, tokens), subjects))


def is_near_tie(program: Program, engine: Engine, subject: str, one: str, two: str) -> bool:
    """Whether two replies part where two tokens are nearly as likely.

    The prefix that they share is given back to the model, and the next token drawn often from
    those within the margin: if there is only one, the lead is larger.
    """
    shared = commonprefix([one, two])
    # Both parted at the end of a token, which may be before that of the shared text.
    while (tokens := engine.tokenize(shared)) and not all(
        engine.tokenize(text)[: len(tokens)] == tokens for text in (one, two)
    ):
        shared = shared[:-1]
    draws = {
        program.ask(
            "/chat",
            messages=f"Tell me about {subject}.",
            replyPrefix=shared,
            tokens=1,
            ignoreEos="true",
            seed=seed,
            temperature=1,
            topK=2,
            topP=1,
            minP=math.exp(-NEAR_TIE),
            penaltyRepetition=1,
            penaltyFrequency=0,
        ).text
        for seed in range(16)
    }
    return len(draws) > 1


def assert_same_but_near_ties(
    program: Program, engine: Engine, subjects: Sequence[str], replies: Sequence[Reply], tokens: int
) -> None:
    parted = 0
    for subject, reply in zip(subjects, replies, strict=True):
        alone = ask(program, subject, tokens)
        if reply.text != alone.text:
            parted += 1
            assert is_near_tie(program, engine, subject, reply.text, alone.text), (
                subject,
                reply.text,
                alone.text,
            )
    assert parted <= len(subjects) // 2, "near ties are rare"


def test_a_near_tie_is_told_from_a_clear_lead(program: Program, engine: Engine) -> None:
    """The test's own yardstick: a reply that parts from the greedy one for no reason is found."""
    text = ask(program, "bees", 16).text
    words = text.split(" ")
    found = [
        is_near_tie(program, engine, "bees", text, " ".join([*words[:at], "quixotic"]))
        for at in range(3, 8)
    ]
    assert not all(found)


def test_clients_at_once_are_all_answered_and_not_mixed_up(
    program: Program, engine: Engine
) -> None:
    assert len(set(SUBJECTS)) == 32
    replies = ask_at_once(program, SUBJECTS, 16)
    assert {reply.status for reply in replies} == {200}
    assert len({reply.id for reply in replies}) == 32
    for reply in replies:
        assert (reply.record["completionTokens"], reply.record["finishReason"]) == (16, "length")
    assert_same_but_near_ties(program, engine, SUBJECTS, replies, 16)


@pytest.fixture(scope="module")
def crowded() -> Iterator[Program]:
    """Place for four requests, and memory for little more than one."""
    with serve(
        *("-context", "96", "-pool", "120", "-parallel", "4"),
        *("-prompt-template-type", "gguf"),
    ) as program:
        yield program


def test_paused_and_resumed_as_if_never(crowded: Program, engine: Engine) -> None:
    subjects = SUBJECTS[:6]
    replies = ask_at_once(crowded, subjects, 48)
    records = [reply.record for reply in replies]
    assert sum(record["pauses"] for record in records) > 0
    assert {record["completionTokens"] for record in records} == {48}
    assert_same_but_near_ties(crowded, engine, subjects, replies, 48)


def test_a_long_prompt_does_not_freeze_a_stream(program: Program) -> None:
    """Pieces of the prompt are computed beside the stream, which goes on between them."""
    with program.begin("/predict", prompt="Once", nKeep=1, **GREEDY) as stream:
        stream.read_some()
        with ThreadPoolExecutor(1) as pool:
            long = pool.submit(program.ask, "/predict", prompt=" a" * 500, tokens=1)
            pieces = 0
            while not long.done():
                assert stream.read_some()
                pieces += 1
        assert long.result().record["promptTokens"] == 500
    assert pieces >= 500 // 128
