"""From start to ready, and what a server keeps in memory."""

from serving.bench import Bench, Scene, warm_up
from serving.figures import Row
from serving.scenes.streams import ask_many
from serving.servers import Server, Sizes, ours

_WIDTH = 4


def _start(bench: Bench, model: str) -> list[Row]:
    sizes = Sizes(bench.model(model), 2048, _WIDTH)
    seconds: dict[str, list[float]] = {kind.name: [] for kind in bench.kinds}
    memory: dict[str, list[float]] = {kind.name: [] for kind in bench.kinds}
    # The first turn brings files into the page cache, and is not counted.
    for turn in range(1 + (bench.rounds or 5)):
        for kind in bench.kinds:
            server = Server(kind, sizes, bench.work / "start.log")
            try:
                if turn == 0:
                    continue
                warm_up([server], _WIDTH)
                ask_many(server, turn, _WIDTH, 16)
                seconds[kind.name].append(server.start_seconds)
                memory[kind.name].append(server.memory() / 2**20)
            finally:
                server.stop()
    rows = []
    for kernels in (False, True):
        own = ours("auto" if kernels else "off").name
        for label, unit, figures, goal in (
            ("from start to ready", "s", seconds, 1.2),
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
