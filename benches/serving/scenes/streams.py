"""Tokens a second: one stream, many streams, and llama.cpp's own limit without a server."""

import json
import subprocess
from functools import partial

from serving.bench import Bench, Scene, in_turns, warm_up
from serving.dialects import Ask
from serving.figures import Row, decode_speed, each, first_text, longest_gap, speed
from serving.servers import Load, Server, Sizes, ours, running

_CONTEXT = 512
_TOKENS = 32
"""Of each of many streams: rounds that are short, and many, ride out the machine's moods."""
_TOKENS_ALONE = 64
_PROMPT_TOKENS = 16
"""About as many as the prompts below have."""


def ask_many(server: Server, turn: int, width: int, tokens: int, *, greedy: bool = False) -> Load:
    """Ask for several stories that have no beginning in common, neither with those of before."""
    return server.ask(
        *(
            Ask(f"{turn}.{n} is the number of this story: once upon a time there", tokens, greedy)
            for n in range(width)
        )
    )


def _one_stream(bench: Bench, model: str, *, greedy: bool, goal: float) -> list[Row]:
    sizes = Sizes(bench.model(model), _CONTEXT, 1)
    with running(bench.kinds, sizes, bench.work) as servers:
        warm_up(servers, 1)
        loads = in_turns(
            servers,
            bench.rounds or 9,
            lambda server, turn: ask_many(server, turn, 1, _TOKENS_ALONE, greedy=greedy),
        )
    sampling = "greedy" if greedy else "default sampling"
    return _rows(loads, f"{model}, 1 stream, {sampling}", goal)


def _many_streams(bench: Bench, model: str, *, width: int, goal: float) -> list[Row]:
    sizes = Sizes(bench.model(model), _CONTEXT, width)
    limits: list[float] = []
    with running(bench.kinds, sizes, bench.work) as servers:
        warm_up(servers, width)

        def measure(server: Server, turn: int) -> Load:
            if server is servers[0]:
                limits.append(_raw_decode(bench, sizes))
            return ask_many(server, turn, width, _TOKENS)

        loads = in_turns(servers, bench.rounds or (7 if width < 32 else 5), measure)
    label = f"{model}, {width} streams"
    rows = _rows(loads, label, goal)
    decoded = {name: each(some, decode_speed) for name, some in loads.items()}
    share = Row(
        f"{label}: share of raw decode",
        "tokens/s",
        decoded["ours"],
        limits,
        0.98,
        kernels=False,
        base_name="llama-batched-bench",
    )
    peer = Row("", "", decoded["llama-server"], limits, None, kernels=False)
    share.notes["llama-server's share"] = peer.ratio
    return [*rows, share]


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


def _rows(loads: dict[str, list[Load]], label: str, goal: float) -> list[Row]:
    """Make a row without and one with kernels of our own."""
    rows = []
    for kernels in (False, True):
        own = loads[ours("auto" if kernels else "off").name]
        base = loads["llama-server"]
        row = Row(label, "tokens/s", each(own, speed), each(base, speed), goal, kernels)
        row.notes = {
            "first text, ms": each(own, first_text)[-1],
            "llama-server's first text, ms": each(base, first_text)[-1],
            "longest gap, ms": 1e3 * longest_gap(own[-1].streams),
            "llama-server's longest gap, ms": 1e3 * longest_gap(base[-1].streams),
            "load client, share of a core": own[-1].client_share,
        }
        rows.append(row)
    return rows


SCENES = tuple(
    Scene(f"{kind}-{model.lower()}", run)
    for model, one, sampled, many in (("SmolLM2", 1.02, 1.02, 1.05), ("Gemma", 1.02, 1.20, 1.25))
    for kind, run in (
        ("greedy", partial(_one_stream, model=model, greedy=True, goal=one)),
        ("sampled", partial(_one_stream, model=model, greedy=False, goal=sampled)),
        ("streams8", partial(_many_streams, model=model, width=8, goal=many)),
        ("streams32", partial(_many_streams, model=model, width=32, goal=many)),
    )
)
