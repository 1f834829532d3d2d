"""From start to the end of a first reply, and what a server keeps in memory."""

from functools import partial

from serving.bench import Bench, Scene, in_turns, warm_up
from serving.figures import Row
from serving.scenes.streams import ask_many
from serving.servers import Kind, Server, Sizes, ours

_WIDTH = 4


def _start(bench: Bench, model: str) -> list[Row]:
    sizes = Sizes(bench.model(model), 2048, _WIDTH)

    def measure(kind: Kind, turn: int) -> tuple[float, float]:
        server = Server(kind, sizes, bench.work / "start.log")
        try:
            seconds = server.answer_seconds()
            warm_up([server], _WIDTH)
            ask_many(server, turn, _WIDTH, 16)
            return seconds, server.memory() / 2**20
        finally:
            server.stop()

    # The first turn brings files into the page cache, and is not counted.
    contenders = {kind.name: partial(measure, kind) for kind in bench.kinds}
    turns = in_turns(contenders, 1 + (bench.rounds or 9))
    seconds = {name: [time for time, _ in told[1:]] for name, told in turns.items()}
    memory = {name: [size for _, size in told[1:]] for name, told in turns.items()}
    rows = []
    for kernels in (False, True):
        own = ours("auto" if kernels else "off").name
        for label, unit, figures, goal in (
            ("from start to the end of a first reply of one token", "s", seconds, 1.2),
            ("resident memory, 4 contexts of 2,048", "MiB", memory, 1.15),
        ):
            peer = figures["llama-server"]
            row = Row(f"{model}: {label}", unit, figures[own], peer, goal, kernels, at_least=False)
            rows.append(row)
    return rows


SCENES = (
    Scene("start-smollm2", lambda bench: _start(bench, "SmolLM2")),
    Scene("start-gemma", lambda bench: _start(bench, "Gemma")),
)
