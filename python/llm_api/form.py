"""What a request asks for: form fields in, checked forms out.

Nothing behind this module looks at a field again. Everything it raises is a
`FormError`, a sentence for the client that says what to change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_to_bytes

from llm_api import options
from llm_api.options import OptionError, Value

__all__ = ["ChatForm", "Fields", "FormError", "PredictForm", "parse_fields", "read_chat_form"]
__all__ += ["read_predict_form"]

_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_SHOWN_CHARS: Final = 64

Fields = Mapping[str, tuple[str, ...]]
"""The values of each field, those of the body before those of the query string."""


class FormError(ValueError):
    """A form that cannot be served; the text says what to change."""


@dataclass(frozen=True, slots=True)
class PredictForm:
    """A text to go on with, and the generation options given beside it."""

    prompt: str
    options: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class ChatForm:
    """The texts of a conversation, and the generation options given beside it.

    `system` is None where the request leaves the server's own in place.
    """

    messages: tuple[str, ...]
    system: str | None
    reply_prefix: str
    options: Mapping[str, Value]


_PREDICT_FIELDS: Final = ("prompt",)
_CHAT_FIELDS: Final = ("messages", "system", "replyPrefix")
_SINGLE: Final = frozenset(
    {"prompt", "system", "replyPrefix"}
    | {name for name, option in options.FIELDS.items() if not option.repeated}
)


def parse_fields(query: bytes, body: bytes, max_fields: int) -> Fields:
    """Decode a query string and an ``application/x-www-form-urlencoded`` body.

    A field given in both has the body's values first; where it takes one value
    only, that is the body's. Twice in one of them is an error for such a field.
    """
    count = sum(source.count(b"&") + 1 for source in (body, query) if source)
    if count > max_fields:
        raise FormError(f"{count} fields are too many; at most {max_fields} are taken")
    fields: dict[str, tuple[str, ...]] = {}
    for source in (body, query):
        for field, values in _decode_source(source).items():
            # Which of two values was meant cannot be known.
            if len(values) > 1 and field in _SINGLE:
                raise FormError(f"the field {field} is given {len(values)} times; give it once")
            fields[field] = (*fields.get(field, ()), *values)
    return fields


def read_predict_form(fields: Fields) -> PredictForm:
    """Check the fields of /predict."""
    given = _options(fields, _PREDICT_FIELDS)
    prompt = _first(fields, "prompt")
    if prompt is None:
        raise FormError("the field prompt is missing")
    if not prompt:
        raise FormError("the field prompt is empty")
    return PredictForm(prompt, given)


def read_chat_form(fields: Fields) -> ChatForm:
    """Check the fields of /chat."""
    given = _options(fields, _CHAT_FIELDS)
    messages = fields.get("messages", ())
    if not messages:
        raise FormError("the field messages is missing; give it once for each message, in order")
    return ChatForm(messages, _first(fields, "system"), _first(fields, "replyPrefix") or "", given)


def _options(fields: Fields, others: tuple[str, ...]) -> dict[str, Value]:
    """Check all fields but `others` as generation options; the result is by snake_case key."""
    given: dict[str, Value] = {}
    try:
        for name, values in fields.items():
            if name in others:
                continue
            option = options.FIELDS.get(name)
            if option is None:
                raise options.unknown(name, (*others, *options.FIELDS))
            if option.repeated:
                given[option.key] = option.check(values)
            else:
                given[option.key] = options.parse_text(option, values[0])
    except OptionError as error:
        raise FormError(f"field {error}") from error
    return given


def _first(fields: Fields, name: str) -> str | None:
    values = fields.get(name)
    return values[0] if values else None


def _decode_source(source: bytes) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for pair in source.split(b"&"):
        if pair:
            name, _, value = pair.partition(b"=")
            fields.setdefault(_decode(name), []).append(_decode(value))
    return fields


def _decode(encoded: bytes) -> str:
    bad = _BAD_ESCAPE.search(encoded)
    if bad:
        shown = encoded[bad.start() : bad.start() + 3].decode("ascii", "backslashreplace")
        raise FormError(
            f"{shown!r} is not a percent-encoded byte; a percent sign itself is sent as %25"
        )
    try:
        return unquote_to_bytes(encoded.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError as error:
        start = encoded[:_SHOWN_CHARS].decode("ascii", "backslashreplace")
        raise FormError(f"{start!r} does not decode to UTF-8 ({error.reason})") from error
