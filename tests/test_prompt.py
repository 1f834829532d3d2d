"""Prompts: text that remembers who wrote it."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from llm_api.prompt import Span, join_spans, prompt_text, with_reply_prefix

spans = st.lists(st.builds(Span, st.text(alphabet="ab", max_size=3), st.booleans()))


@given(spans)
def test_joining_keeps_every_character_and_its_kind(parts):
    joined = join_spans(parts)
    assert [(char, span.is_data) for span in joined for char in span.text] == [
        (char, part.is_data) for part in parts for char in part.text
    ]
    assert all(span.text for span in joined)
    assert all(a.is_data != b.is_data for a, b in pairwise(joined))


def test_a_reply_prefix_follows_after_a_space():
    prompt = (Span("[INST] ", False), Span("hi", True))
    assert with_reply_prefix(prompt, "Sure,") == (
        Span("[INST] ", False),
        Span("hi", True),
        Span(" ", False),
        Span("Sure,", True),
    )


def test_a_reply_prefix_follows_a_newline_at_once():
    prompt = (Span("assistant\n", False),)
    assert prompt_text(with_reply_prefix(prompt, "Sure,")) == "assistant\nSure,"


def test_a_space_before_a_reply_prefix_doesnt_replace_one():
    assert prompt_text(with_reply_prefix((Span("a ", False),), "b")) == "a  b"


def test_no_reply_prefix_changes_nothing():
    prompt = (Span("a", False), Span("b", True))
    assert with_reply_prefix(prompt, "") == prompt
