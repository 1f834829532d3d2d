"""Long prompts: fresh, of a second turn, shared by many, one that arrives among streams."""

from functools import partial

from serving.bench import Bench, Scene, ask_in_turns, warm_up
from serving.dialects import Ask
from serving.figures import Row, all_begun, longest_gap
from serving.servers import LoadError, Server, Sizes, ours, running

_WORDS = (
    "The harbour lay quiet under a pale sky while the boats came home one after another and the "
    "men on the pier counted crates of fish, wrote numbers into a book and spoke of the weather. "
).split()
_WORDS_PER_TOKEN = 0.87
"""Of the text above, with the vocabulary of SmolLM2."""


_WORDS_OF_512 = {"SmolLM2": 468, "Gemma": 480}
"""So many make a fresh prompt of 512 tokens."""


def prose(tokens: int, beginning: str) -> str:
    """Return about so many tokens of text; what begins otherwise shares nothing."""
    return _words(int(tokens * _WORDS_PER_TOKEN), beginning)


def _words(count: int, beginning: str) -> str:
    return beginning + " " + " ".join(_WORDS[n % len(_WORDS)] for n in range(count))


def _fresh_prompt(bench: Bench, model: str, goal: float) -> list[Row]:
    sizes = Sizes(bench.model(model), 1024, 1)

    def measure(server: Server, turn: int) -> tuple[float, int]:
        ask = Ask(_words(_WORDS_OF_512[model], f"Page {turn:02}."), 4, greedy=True)
        (stream,) = server.ask(ask).streams
        return stream.first - stream.sent, stream.prompt_tokens

    with running(bench.kinds, sizes, bench.work) as servers:
        warm_up(servers, 1)
        times = ask_in_turns(servers, bench.rounds or 9, measure)
    sizes_told = {size for told in times.values() for _, size in told}
    if len(sizes_told) > 1:
        raise LoadError(f"prompts of different sizes: {sorted(sizes_told)} tokens")
    (tokens,) = sizes_told
    speeds = {name: [size / seconds for seconds, size in told] for name, told in times.items()}
    rows = []
    for kernels in (False, True):
        name = ours("auto" if kernels else "off").name
        row = Row(
            f"{model}, a fresh prompt of {tokens} tokens, read until the first text",
            "tokens/s",
            speeds[name],
            speeds["llama-server"],
            goal if kernels else None,
            kernels,
        )
        for notes, who in ((row.notes, name), (row.base_notes, "llama-server")):
            notes["first text, ms"] = [1e3 * seconds for seconds, _ in times[who]]
        rows.append(row)
    return rows


def _second_turn(bench: Bench) -> list[Row]:
    sizes = Sizes(bench.model("SmolLM2"), 4096, 2)

    def measure(server: Server, turn: int) -> tuple[float, float]:
        first = prose(2000, f"Chat {turn}.") + "\nUser: What happened next?\nAnswer:"
        (opening,) = server.ask(Ask(first, 32)).streams
        # Ours drops white space at the start of a reply.
        told = f"{first} {opening.text.strip()}"
        second = f"{told}\nUser: And after that, who came?\nAnswer:"
        (answer,) = server.ask(Ask(second, 8)).streams
        return opening.first - opening.sent, answer.first - answer.sent

    with running(bench.kinds, sizes, bench.work) as servers:
        warm_up(servers, 1)
        times = ask_in_turns(servers, bench.rounds or 7, measure)
    label = "second turn of a chat after 2,000 tokens, time to first text"
    rows = []
    for kernels in (False, True):
        own = times[ours("auto" if kernels else "off").name]
        peer = times["llama-server"]
        seconds = [second for _, second in own]
        rows += [
            Row(
                label,
                "s",
                seconds,
                [first for first, _ in own],
                1 / 15,
                kernels,
                at_least=False,
                base_name="ours, first turn",
            ),
            Row(
                label,
                "s",
                seconds,
                [second for _, second in peer],
                1.0,
                kernels,
                at_least=False,
            ),
        ]
    return rows


def _shared_prompt(bench: Bench) -> list[Row]:
    sizes = Sizes(bench.model("SmolLM2"), 1536, 8)

    def measure(server: Server, turn: int) -> float:
        system = prose(1000, f"Instructions {turn}.")
        asks = (Ask(f"{system}\nUser {n} asks: what is {n} and {n}?\nAnswer:", 4) for n in range(8))
        return all_begun(server.ask(*asks))

    with running(bench.kinds, sizes, bench.work) as servers:
        warm_up(servers, 8)
        times = ask_in_turns(servers, bench.rounds or 3, measure)
    return _rows("8 requests share a prompt of 1,000 tokens: all first texts", "s", times, 0.4)


def _long_prompt_arrives(bench: Bench) -> list[Row]:
    sizes = Sizes(bench.model("SmolLM2"), 4096, 5)

    def measure(server: Server, turn: int) -> tuple[float, float]:
        short: list[tuple[Ask, float | None]] = [
            (Ask(f"{turn}.{n}: once upon a time there", 160), None) for n in range(4)
        ]
        long = Ask(prose(3500, f"Report {turn}."), 4)
        streams = server.ask_later([*short, (long, 0.5)]).streams
        if all(stream.last < streams[4].sent for stream in streams[:4]):
            raise LoadError("the streams had ended when the long prompt came")
        came = streams[4]
        return longest_gap(streams[:4], since=came.sent), came.first - came.sent

    with running(bench.kinds, sizes, bench.work) as servers:
        warm_up(servers, 4)
        times = ask_in_turns(servers, bench.rounds or 3, measure)
    gaps = {name: [gap for gap, _ in told] for name, told in times.items()}
    label = "a prompt of 3,500 tokens comes while 4 streams run: their longest gap"
    rows = _rows(label, "s", gaps, 0.5)
    for row in rows:
        name = ours("auto" if row.kernels else "off").name
        for notes, who in ((row.notes, name), (row.base_notes, "llama-server")):
            notes["the prompt's own first text, s"] = [first for _, first in times[who]]
    return rows


def _rows(label: str, unit: str, figures: dict[str, list[float]], goal: float) -> list[Row]:
    """Make rows of figures that should be small."""
    return [
        Row(
            label,
            unit,
            figures[ours("auto" if kernels else "off").name],
            figures["llama-server"],
            goal,
            kernels,
            at_least=False,
        )
        for kernels in (False, True)
    ]


SCENES = (
    Scene("prompt-smollm2", partial(_fresh_prompt, model="SmolLM2", goal=6.0)),
    Scene("prompt-gemma", partial(_fresh_prompt, model="Gemma", goal=2.8)),
    Scene("second-turn", _second_turn),
    Scene("shared-prompt", _shared_prompt),
    Scene("long-prompt", _long_prompt_arrives),
)
