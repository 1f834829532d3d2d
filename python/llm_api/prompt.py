"""A prompt as the tokenizer takes it: text that remembers who wrote it.

A prompt is a sequence of spans.  Text of the template is trusted, and control tokens in it are
control tokens; text of a client is data, and stays plain text whatever it looks like.  The
tokenizer cuts the prompt only at control tokens that lie wholly inside one trusted span, so two
trusted spans never stand side by side: `join_spans` makes them one.
"""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Prompt", "Span", "join_spans", "prompt_text", "with_reply_prefix"]


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of a prompt; the text of a data span never becomes a control token."""

    text: str
    is_data: bool


Prompt = tuple[Span, ...]


def join_spans(spans: Iterable[Span]) -> Prompt:
    """Drop empty spans and join neighbours of the same kind."""
    runs: list[tuple[bool, list[str]]] = []
    for span in spans:
        if not span.text:
            continue
        if not runs or runs[-1][0] != span.is_data:
            runs.append((span.is_data, []))
        runs[-1][1].append(span.text)
    return tuple(Span("".join(texts), is_data) for is_data, texts in runs)


def prompt_text(prompt: Prompt) -> str:
    """Return the whole text of a prompt."""
    return "".join(span.text for span in prompt)


def with_reply_prefix(prompt: Prompt, reply_prefix: str) -> Prompt:
    """Append the beginning of the reply, after a space unless the prompt ends in a newline.

    The prefix is data: it comes from the client.
    """
    if not reply_prefix:
        return prompt
    separator = "" if prompt and prompt[-1].text.endswith("\n") else " "
    return join_spans((*prompt, Span(separator, False), Span(reply_prefix, True)))
