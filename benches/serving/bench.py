"""What scenes have in common: models, kinds of servers, turns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from serving.dialects import Ask
from serving.figures import Row
from serving.peer import Peer
from serving.servers import Kind, Server, llama_server, ours

T = TypeVar("T")

_WARM_UP_TOKENS = 4


ROOT = Path(__file__).parents[2]
"""The repository."""


class LeftOutError(Exception):
    """A scene that lacks something here; the text says what."""


@dataclass(frozen=True)
class Bench:
    """What a scene may use."""

    models: dict[str, Path]
    """By the name that the table gives them."""
    peer: Peer
    work: Path
    """A folder for logs and for files that scenes make."""
    rounds: int | None
    """Instead of the number of rounds that a scene has by default."""

    def model(self, name: str) -> Path:
        """Return a model's file; raises LeftOutError without it."""
        try:
            return self.models[name]
        except KeyError:
            raise LeftOutError(f"no model {name}") from None

    @property
    def kinds(self) -> list[Kind]:
        """Ours without kernels of its own, the peer, ours with them."""
        return [ours("off"), llama_server(self.peer.server), ours("auto")]


@dataclass(frozen=True)
class Scene:
    """Something to measure; `run` returns rows of the table."""

    name: str
    run: Callable[[Bench], list[Row]]


def warm_up(servers: list[Server], width: int) -> None:
    """Let each server answer once, as wide as it will be asked."""
    for server in servers:
        server.ask(*(Ask(f"Warm up {n}.", _WARM_UP_TOKENS) for n in range(width)))


def in_turns(contenders: Mapping[str, Callable[[int], T]], rounds: int) -> dict[str, list[T]]:
    """Measure each contender once a round; each round begins with another: A B C, B C A, …

    A contender is called with the number of the round. What it returned is told by its name, in
    the order of the rounds.
    """
    names = list(contenders)
    results: dict[str, list[T]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in (*names[first:], *names[:first]):
            results[name].append(contenders[name](turn))
    return results


def ask_in_turns(
    servers: list[Server], rounds: int, measure: Callable[[Server, int], T]
) -> dict[str, list[T]]:
    """Do that with servers, by the names of their kinds."""
    return in_turns({server.kind.name: partial(measure, server) for server in servers}, rounds)
