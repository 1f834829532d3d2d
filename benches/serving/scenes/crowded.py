"""Cores that are shared: with a process that computes, with another server."""

from serving.bench import Bench, Scene, in_turns, warm_up
from serving.dialects import Ask
from serving.figures import Row
from serving.neighbour import busy_neighbour
from serving.servers import Kind, Load, Server, Sizes, ask_all, llama_server, ours, running

_TOKENS = 128
_SECONDS = 4.0
"""A stream that is slower is cut off and its pieces counted: llama-server may take minutes."""


def _ask(turn: int, which: int) -> Ask:
    return Ask(f"{turn}.{which} is the number of this story: once upon a time there", _TOKENS)


def _speed(load: Load) -> float:
    """Return tokens a second of all streams; one that was cut off counts until then."""
    return sum(
        len(stream.pieces) / (_SECONDS if len(stream.pieces) < _TOKENS * 0.9 else stream.last)
        for stream in load.streams
    )


def _busy_neighbour(bench: Bench) -> list[Row]:
    sizes = Sizes(bench.model("SmolLM2"), 512, 1)

    def measure(server: Server, turn: int) -> tuple[float, float]:
        quiet = server.ask(_ask(turn, 1), deadline=_SECONDS, may_cut=True)
        with busy_neighbour():
            busy = server.ask(_ask(turn, 2), deadline=_SECONDS, may_cut=True)
        return _speed(quiet), _speed(busy)

    with running(bench.kinds, sizes, bench.work) as servers:
        warm_up(servers, 1)
        speeds = in_turns(servers, bench.rounds or 3, measure)
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
    rows = []
    for kind in (ours("off"), ours("auto"), llama_server(bench.peer.server)):
        alone, both = _alone_and_both(bench, kind, sizes)
        is_ours = kind.program is None
        rows.append(
            Row(
                f"two servers at once, a stream each: {kind.name}",
                "tokens/s",
                both,
                alone,
                0.8 if is_ours else None,
                kernels="kernels" in kind.name,
                base_name="one alone",
            )
        )
    return rows


def _alone_and_both(bench: Bench, kind: Kind, sizes: Sizes) -> tuple[list[float], list[float]]:
    # First alone: for some seconds after it was crowded, ours computes with fewer threads.
    turns = range(bench.rounds or 3)
    with running([kind, kind], sizes, bench.work) as servers:
        warm_up(servers, 1)
        first, second = servers
        alone = [
            _speed(first.ask(_ask(turn, 0), deadline=_SECONDS, may_cut=True)) for turn in turns
        ]
        both = [
            _speed(
                ask_all(
                    [(first, _ask(turn, 1), None), (second, _ask(turn, 2), None)],
                    _SECONDS,
                    may_cut=True,
                )
            )
            for turn in turns
        ]
    return alone, both


SCENES = (Scene("busy-neighbour", _busy_neighbour), Scene("two-servers", _two_servers))
