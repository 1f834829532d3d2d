"""Work that copies: a letter again to somebody else, with and without prompt lookup."""

import statistics

from serving.bench import Bench, Scene, ask_in_turns, warm_up
from serving.dialects import Ask, Stream
from serving.figures import Row, each, speed
from serving.servers import Kind, Load, LoadError, Server, Sizes, ours, running

_BEGINNING = "Thank you for"
_REST = (
    " your order of 3 May. Your ten lamps have left our shop in Leeds this morning, and the "
    "train will bring them to York on Monday. The bill of 450 pounds is in the box with the "
    "lamps; please pay it by the end of the month. If a lamp is broken, call us at 555 0142, and "
    "we will send you a new one at once. The lamps should stand in a dry place, at least one "
    "metre from curtains and paper, and each of them needs a bulb of 40 watts, which is not in "
    "the box. The book about garden lights that you asked for is sold out, but we expect more of "
    "them in June and will keep one for you. On 12 June our new shop in Station Road opens at "
    "nine in the morning, with music, tea and cake for all who come.\n\n"
    "We hope that you like the lamps and that you will buy from us again.\n\n"
    "Yours sincerely,\nJane Miller\nMiller and Sons, Lamps and Lights, 12 High Street, Leeds"
)
_NO_PENALTIES = ("-penalty-repetition", "1", "-penalty-frequency", "0")
"""Which would be on what is copied."""
_TOKENS = 224
"""As many as the rest of the letter has."""


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
        # So small a model does not change a word in the middle, nor find into the letter by itself.
        asked = (
            f"Request {number}: Write this letter again, but to Mrs Green.\n\n"
            f"Dear Mr Brown,\n\n{_BEGINNING}{_REST}\n\n"
            f"Reply {number}:\n\nDear Mrs Green,\n\n{_BEGINNING}"
        )
        return server.ask(Ask(asked, _TOKENS, greedy=True))

    with running(_kinds(), sizes, bench.work) as servers:
        warm_up(servers, 1)
        loads = ask_in_turns(servers, bench.rounds or 9, measure)
    rows = []
    for kernels in (False, True):
        name = ours("auto" if kernels else "off").name
        plain, lookup = loads[f"{name}, false"], loads[f"{name}, true"]
        row = Row(
            "a letter again to another name, greedy, 1 stream, prompt lookup",
            "tokens/s",
            each(lookup, speed),
            each(plain, speed),
            1.5,
            kernels,
            base_name="ours without it",
        )
        for one, other in zip(plain, lookup, strict=True):
            check_same(one.streams[0], other.streams[0])
            check_copy(other.streams[0])
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


def check_copy(stream: Stream) -> None:
    """Raise LoadError if the letter has become another one."""
    if not _REST.startswith(f" {stream.text.strip()}"):
        raise LoadError(f"not the letter, but {stream.text!r}")


SCENES = (Scene("copying", _copying),)
