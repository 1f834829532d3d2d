"""Many requests at once: each gets what it would get alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from .program import GREEDY, Program, Reply, serve

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

SUBJECTS = """
apples bees clouds deserts eagles forests gold horses islands jade kites lions mountains nuts oceans
pearls queens rivers stars trees uranium violins whales xylophones yachts zebras bread coffee
dancing engines football glass
""".split()


def ask(program: Program, subject: str, tokens: int) -> Reply:
    return program.ask("/chat", messages=f"Tell me about {subject}.", tokens=tokens, **GREEDY)


def ask_at_once(program: Program, subjects: Sequence[str], tokens: int) -> list[Reply]:
    with ThreadPoolExecutor(len(subjects)) as pool:
        return list(pool.map(lambda subject: ask(program, subject, tokens), subjects))


def assert_as_alone(
    program: Program, subjects: Sequence[str], replies: Sequence[Reply], tokens: int
) -> None:
    """Replies are what their requests get alone, but where a near tie of two tokens turned.

    Another batch shape rounds otherwise. That nothing but near ties turn is tested with the logits
    at hand, in rust/engine/tests/llama_batching, and exactly with a scripted model in
    tests/server/test_engine.py; here some must be the same, and none another's.
    """
    alone = [ask(program, subject, tokens).text for subject in subjects]
    texts = [reply.text for reply in replies]
    assert sum(one == two for one, two in zip(texts, alone, strict=True)) >= len(subjects) // 4
    for subject, one, two in zip(subjects, texts, alone, strict=True):
        assert one == two or one not in alone, (subject, one, two)


def test_clients_at_once_are_all_answered_and_not_mixed_up(program: Program) -> None:
    assert len(set(SUBJECTS)) == 32
    replies = ask_at_once(program, SUBJECTS, 16)
    assert {reply.status for reply in replies} == {200}
    assert len({reply.id for reply in replies}) == 32
    for reply in replies:
        assert (reply.record["completionTokens"], reply.record["finishReason"]) == (16, "length")
    assert_as_alone(program, SUBJECTS, replies, 16)


@pytest.fixture(scope="module")
def crowded() -> Iterator[Program]:
    """Place for four requests, and memory that lets a second one in but not come to its end."""
    with serve(
        *("-context", "128", "-pool", "200", "-parallel", "4"),
    ) as program:
        yield program


FIRST_PAGES = (17, 41, 49, 57, 81, 89)


def test_paused_and_resumed_as_if_never(crowded: Program) -> None:
    """Pages are counted on so surely that rounding turns no token."""

    def go_on(first: int) -> Reply:
        pages = range(first, first + 4)
        prompt = "".join(f"Page {n} of the book, chapter {n}.\n" for n in pages)
        return crowded.ask("/predict", prompt=prompt, tokens=64, **GREEDY)

    with ThreadPoolExecutor(len(FIRST_PAGES)) as pool:
        replies = list(pool.map(go_on, FIRST_PAGES))
    assert sum(reply.record["pauses"] for reply in replies) > 0
    for first, reply in zip(FIRST_PAGES, replies, strict=True):
        assert f"Page {first + 6} of the book" in reply.text
        assert (first, reply.text) == (first, go_on(first).text)


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
