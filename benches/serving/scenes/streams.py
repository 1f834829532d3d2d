"""Tokens a second: one stream, many streams, and llama.cpp's own limit without a server."""

import json
import subprocess
from dataclasses import dataclass, field
from functools import partial

from serving.bench import Bench, Scene, ask_in_turns, in_turns, warm_up
from serving.dialects import Ask
from serving.figures import Row, decode_speed, first_text, longest_gap, speed
from serving.servers import Load, Server, Sizes, ours, running

_CONTEXT = 512
_TOKENS = 32
"""Of each of many streams: rounds that are short, and many, ride out the machine's moods."""
_TOKENS_ALONE = 64
_PROMPT_TOKENS = 16
"""About as many as the prompts below have."""
_LIMIT = "llama-batched-bench"


@dataclass
class _Reading:
    """What one round shows of one contender, in tokens a second, and what was seen beside it."""

    speed: float
    decode_speed: float
    notes: dict[str, float] = field(default_factory=dict)


def _read(load: Load) -> _Reading:
    notes = {
        "first text, ms": first_text(load),
        "longest gap, ms": 1e3 * longest_gap(load.streams),
        "load client, share of a core": load.client_share,
    }
    return _Reading(speed(load), decode_speed(load), notes)


def ask_many(server: Server, turn: int, width: int, tokens: int, *, greedy: bool = False) -> Load:
    """Ask for several stories that have no beginning in common, neither with those of before."""
    return server.ask(
        *(
            Ask(f"{turn}.{n} is the number of this story: once upon a time there", tokens, greedy)
            for n in range(width)
        )
    )


def _one_stream(bench: Bench, model: str, *, greedy: bool, goal: float, rounds: int) -> list[Row]:
    sizes = Sizes(bench.model(model), _CONTEXT, 1)

    def measure(server: Server, turn: int) -> _Reading:
        return _read(ask_many(server, turn, 1, _TOKENS_ALONE, greedy=greedy))

    with running(bench.kinds, sizes, bench.work) as servers:
        warm_up(servers, 1)
        readings = ask_in_turns(servers, bench.rounds or rounds, measure)
    sampling = "greedy" if greedy else "default sampling"
    return _rows(readings, f"{model}, 1 stream, {sampling}", goal)


def _many_streams(bench: Bench, model: str, *, width: int, goal: float, rounds: int) -> list[Row]:
    sizes = Sizes(bench.model(model), _CONTEXT, width)

    def measure(server: Server, turn: int) -> _Reading:
        return _read(ask_many(server, turn, width, _TOKENS))

    def limit(turn: int) -> _Reading:  # noqa: ARG001 - it has no prompts that could be the same
        decoded = _raw_decode(bench, sizes)
        return _Reading(decoded, decoded)

    with running(bench.kinds, sizes, bench.work) as servers:
        warm_up(servers, width)
        contenders = {server.kind.name: partial(measure, server) for server in servers}
        readings = in_turns(contenders | {_LIMIT: limit}, bench.rounds or rounds)
    label = f"{model}, {width} streams"
    return [*_rows(readings, label, goal), *_shares(readings, label)]


def _shares(readings: dict[str, list[_Reading]], label: str) -> list[Row]:
    """Hold decoding against llama.cpp without a server: ours without kernels, and the peer's."""
    decoded = {name: [reading.decode_speed for reading in some] for name, some in readings.items()}
    return [
        Row(
            f"{label}: share of raw decode{whose}",
            "tokens/s",
            decoded[name],
            decoded[_LIMIT],
            goal,
            kernels=False,
            base_name=_LIMIT,
        )
        for name, whose, goal in (("ours", "", 0.98), ("llama-server", ", llama-server's", None))
    ]


def _raw_decode(bench: Bench, sizes: Sizes) -> float:
    """Return what llama.cpp decodes in a second, without sampling and without a server."""
    done = subprocess.run(
        [
            *(str(bench.peer.batched_bench), "-m", str(sizes.model), "-t", str(sizes.threads)),
            *("-c", str(sizes.context * sizes.parallel), "-npp", str(_PROMPT_TOKENS)),
            *("-ntg", str(_TOKENS), "-npl", str(sizes.parallel), "--output-format", "jsonl"),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("{"))
    return float(json.loads(line)["speed_tg"])


def _rows(readings: dict[str, list[_Reading]], label: str, goal: float) -> list[Row]:
    """Make a row without and one with kernels of our own."""
    base = readings["llama-server"]
    rows = []
    for kernels in (False, True):
        own = readings[ours("auto" if kernels else "off").name]
        speeds, base_speeds = ([reading.speed for reading in some] for some in (own, base))
        row = Row(label, "tokens/s", speeds, base_speeds, goal, kernels)
        for name in own[0].notes:
            row.notes[name] = [reading.notes[name] for reading in own]
            row.base_notes[name] = [reading.notes[name] for reading in base]
        rows.append(row)
    return rows


SCENES = tuple(
    Scene(f"{kind}-{model.lower()}", run)
    for model, one, sampled, many, rounds in (
        ("SmolLM2", 1.02, 1.02, 1.05, 21),
        ("Gemma", 1.02, 1.20, 1.25, 13),
    )
    for kind, run in (
        ("greedy", partial(_one_stream, model=model, greedy=True, goal=one, rounds=rounds)),
        ("sampled", partial(_one_stream, model=model, greedy=False, goal=sampled, rounds=rounds)),
        ("streams8", partial(_many_streams, model=model, width=8, goal=many, rounds=11)),
        ("streams32", partial(_many_streams, model=model, width=32, goal=many, rounds=7)),
    )
)
