"""Cores that are shared: with a process that computes, with another server."""

import time
from functools import partial

from serving.bench import Bench, Scene, ask_in_turns, in_turns, warm_up
from serving.dialects import Ask
from serving.figures import Row
from serving.neighbour import busy_neighbour
from serving.servers import Load, Server, Sizes, ask_all, llama_server, ours, running

_TOKENS = 128
_SECONDS = 4.0
"""A stream that is slower is cut off: llama-server may take minutes."""
_REST_SECONDS = 4.0
"""For so long at most after such a time ours goes on with a thread less."""
_NO_DRAFTS = "-prompt-lookup=false"
"""So that of ours, too, a piece is a token."""


def _ask(turn: int, which: int) -> Ask:
    return Ask(f"{turn}.{which} is the number of this story: once upon a time there", _TOKENS)


def speed_until_cut(load: Load) -> float:
    """Return tokens a second of all streams; one that was cut off counts until then."""
    return sum(s.tokens / ((s.last if s.is_whole else _SECONDS) - s.sent) for s in load.streams)


def _settle(server: Server, crowded_at: float) -> None:
    """Let a server that was crowded find out, while it computes, that it is no more."""
    time.sleep(max(0.0, crowded_at + _REST_SECONDS - time.perf_counter()))
    server.ask(Ask("Once upon a time there", _TOKENS), deadline=_SECONDS, may_cut=True)


def _busy_neighbour(bench: Bench) -> list[Row]:
    sizes = Sizes(bench.model("SmolLM2"), 512, 1)
    kinds = [ours("off", _NO_DRAFTS), llama_server(bench.peer.server), ours("auto", _NO_DRAFTS)]
    crowded_at = dict.fromkeys((kind.name for kind in kinds), 0.0)

    def measure(server: Server, turn: int) -> tuple[float, float]:
        _settle(server, crowded_at[server.kind.name])
        quiet = server.ask(_ask(turn, 1), deadline=_SECONDS, may_cut=True)
        with busy_neighbour():
            busy = server.ask(_ask(turn, 2), deadline=_SECONDS, may_cut=True)
        crowded_at[server.kind.name] = time.perf_counter()
        return speed_until_cut(quiet), speed_until_cut(busy)

    with running(kinds, sizes, bench.work) as servers:
        warm_up(servers, 1)
        speeds = ask_in_turns(servers, bench.rounds or 5, measure)
    rows = []
    for kernels in (False, True):
        own = speeds[ours("auto" if kernels else "off").name]
        kept = [busy / quiet for quiet, busy in own]
        rows += [
            Row(
                "a busy neighbour on one core, 1 stream",
                "tokens/s",
                [busy for _, busy in own],
                [quiet for quiet, _ in own],
                0.6,
                kernels,
                base_name="ours, quiet",
            ),
            Row(
                "a busy neighbour on one core, 1 stream: share of quiet speed kept",
                "",
                kept,
                [busy / quiet for quiet, busy in speeds["llama-server"]],
                1.5,
                kernels,
            ),
        ]
    return rows


def _two_servers(bench: Bench) -> list[Row]:
    sizes = Sizes(bench.model("SmolLM2"), 512, 1)
    kinds = [ours("off", _NO_DRAFTS), ours("auto", _NO_DRAFTS), llama_server(bench.peer.server)]
    crowded_at = dict.fromkeys((kind.name for kind in kinds), 0.0)

    def alone(server: Server, turn: int) -> float:
        _settle(server, crowded_at[server.kind.name])
        return speed_until_cut(server.ask(_ask(turn, 0), deadline=_SECONDS, may_cut=True))

    def both(first: Server, second: Server, turn: int) -> float:
        asks = [(first, _ask(turn, 1), None), (second, _ask(turn, 2), None)]
        speed = speed_until_cut(ask_all(asks, _SECONDS, may_cut=True))
        crowded_at[first.kind.name] = time.perf_counter()
        return speed

    with running([*kinds, *kinds], sizes, bench.work) as servers:
        warm_up(servers, 1)
        contenders = {}
        for kind, one, other in zip(
            kinds, servers[: len(kinds)], servers[len(kinds) :], strict=True
        ):
            contenders[f"{kind.name}, alone"] = partial(alone, one)
            contenders[f"{kind.name}, both"] = partial(both, one, other)
        speeds = in_turns(contenders, bench.rounds or 5)
    return [
        Row(
            f"two servers at once, a stream each: {kind.name}",
            "tokens/s",
            speeds[f"{kind.name}, both"],
            speeds[f"{kind.name}, alone"],
            0.8 if kind.program is None else None,
            kernels="kernels" in kind.name,
            base_name="one alone",
        )
        for kind in kinds
    ]


SCENES = (Scene("busy-neighbour", _busy_neighbour), Scene("two-servers", _two_servers))
