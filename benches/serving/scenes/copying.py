"""Work that copies: a text again with one word changed, with and without prompt lookup."""

import statistics

from serving.bench import Bench, Scene, ask_in_turns, warm_up
from serving.dialects import Ask, Stream
from serving.figures import Row, each, speed
from serving.servers import Kind, Load, LoadError, Server, Sizes, ours, running

_TEXT = (
    "The harbour lay quiet under a pale sky. The boats came home one after another, and the men on "
    "the pier counted crates of fish, wrote numbers into a book and spoke of the weather. In the "
    "evening the lamps were lit, and somebody played an old song on a violin by the open window."
)
_NO_PENALTIES = ("-penalty-repetition", "1", "-penalty-frequency", "0")
"""Which would be on what is copied."""
_TOKENS = 72
"""About as many as the text has."""


def _kinds() -> list[Kind]:
    kinds = []
    for kernels in ("off", "auto"):
        for lookup in ("false", "true"):
            kind = ours(kernels, f"-prompt-lookup={lookup}", *_NO_PENALTIES)
            kinds.append(Kind(f"{kind.name}, {lookup}", kind.dialect, None, kind.flags))
    return kinds


def _copying(bench: Bench) -> list[Row]:
    sizes = Sizes(bench.model("SmolLM2"), 1024, 1)

    def measure(server: Server, turn: int) -> Load:
        number = turn + 1
        asked = f"Text {number}: {_TEXT}\nThe same text with ship for boat.\nText {number}:"
        return server.ask(Ask(asked, _TOKENS, greedy=True))

    with running(_kinds(), sizes, bench.work) as servers:
        warm_up(servers, 1)
        loads = ask_in_turns(servers, bench.rounds or 9, measure)
    rows = []
    for kernels in (False, True):
        name = ours("auto" if kernels else "off").name
        plain, lookup = loads[f"{name}, false"], loads[f"{name}, true"]
        row = Row(
            "a text copied with a word changed, greedy, 1 stream, prompt lookup",
            "tokens/s",
            each(lookup, speed),
            each(plain, speed),
            1.5,
            kernels,
            base_name="ours without it",
        )
        for one, other in zip(plain, lookup, strict=True):
            check_same(one.streams[0], other.streams[0])
        # What a step accepts is sent as one piece; late, with that of the next step.
        row.notes["tokens a piece"] = each(lookup, _tokens_a_piece)
        row.base_notes["tokens a piece"] = each(plain, _tokens_a_piece)
        told = (row.notes["tokens a piece"], row.base_notes["tokens a piece"])
        with_it, without = (statistics.median(tokens) for tokens in told)
        if with_it == without:
            row.remark = "nothing was drafted, so this is the same program twice"
        rows.append(row)
    return rows


def _tokens_a_piece(load: Load) -> float:
    (stream,) = load.streams
    return stream.tokens / len(stream.pieces)


def check_same(plain: Stream, lookup: Stream) -> None:
    """Raise LoadError if prompt lookup has changed a text."""
    if plain.text != lookup.text:
        raise LoadError(
            f"another text with prompt lookup: {lookup.text!r}, without it {plain.text!r}"
        )


SCENES = (Scene("copying", _copying),)
