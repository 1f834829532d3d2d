"""A model that computes next to nothing: what the server itself takes for a token."""

from serving.bench import Bench, Scene, ask_in_turns, warm_up
from serving.figures import Row, client_share, each, first_text, speed
from serving.scenes.streams import ask_many
from serving.servers import Sizes, ours, running

_WIDTH = 64
_TOKENS = 96
_GOAL = 4.0


def _server_bound(bench: Bench) -> list[Row]:
    from serving import random_model  # noqa: PLC0415 - needs what only benches need

    model = bench.work / "random-one-layer.gguf"
    random_model.write(bench.model("SmolLM2"), model)
    sizes = Sizes(model, 512, _WIDTH, threads=1)
    with running(bench.kinds, sizes, bench.work) as servers:
        warm_up(servers, _WIDTH)
        before = {server.kind.name: server.cpu_seconds() for server in servers}
        rounds = bench.rounds or 9
        loads = ask_in_turns(
            servers, rounds, lambda server, turn: ask_many(server, turn, _WIDTH, _TOKENS)
        )
        tokens = rounds * _WIDTH * _TOKENS
        cpu = {s.kind.name: (s.cpu_seconds() - before[s.kind.name]) / tokens for s in servers}
    rows = []
    for kernels in (False, True):
        name = ours("auto" if kernels else "off").name
        row = Row(
            f"server-bound: random model of one layer, {_WIDTH} streams, 1 thread",
            "tokens/s",
            each(loads[name], speed),
            each(loads["llama-server"], speed),
            _GOAL,
            kernels,
        )
        row.notes = {
            "CPU time of a token, µs": [1e6 * cpu[name]],
            "first text, ms": each(loads[name], first_text),
            "load client, share of a core": each(loads[name], client_share),
        }
        row.base_notes = {
            "CPU time of a token, µs": [1e6 * cpu["llama-server"]],
            "first text, ms": each(loads["llama-server"], first_text),
            "load client, share of a core": each(loads["llama-server"], client_share),
        }
        rows.append(row)
    return rows


SCENES = (Scene("server-bound", _server_bound),)
