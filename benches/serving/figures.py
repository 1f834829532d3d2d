"""Figures of a load, and rows of the table."""

import itertools
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from serving.dialects import Stream
from serving.servers import Load


def speed(load: Load) -> float:
    """Return tokens a second of all streams together, from the first request to the last text."""
    streams = load.streams
    seconds = max(s.last for s in streams) - min(s.sent for s in streams)
    return sum(s.tokens for s in streams) / seconds


def decode_speed(load: Load) -> float:
    """Return tokens a second while all streams run: without prompts, first and last steps."""
    begin = max(s.first for s in load.streams)
    end = min(s.last for s in load.streams)
    return sum(_tokens_between(s, begin, end) for s in load.streams) / (end - begin)


def _tokens_between(stream: Stream, begin: float, end: float) -> float:
    pieces = sum(begin < when <= end for when, _ in stream.pieces)
    return pieces * stream.tokens / len(stream.pieces)


def first_text(load: Load) -> float:
    """Return the median of the milliseconds to the first text."""
    return 1e3 * statistics.median(s.first - s.sent for s in load.streams)


def all_begun(load: Load) -> float:
    """Return the seconds until every stream had its first text."""
    return max(s.first for s in load.streams) - min(s.sent for s in load.streams)


def longest_gap(streams: list[Stream], since: float = 0.0) -> float:
    """Return the longest time between two pieces of one stream, those after `since` alone."""
    gaps = [0.0]
    for stream in streams:
        times = [when for when, _ in stream.pieces]
        gaps += [b - a for a, b in itertools.pairwise(times) if b > since]
    return max(gaps)


@dataclass
class Row:
    """One line of the table: a figure of ours, what it is held against, and the goal.

    The figures are those of the rounds, in order; what stands at the same place was measured one
    after the other.
    """

    label: str
    unit: str
    ours: list[float]
    base: list[float]
    goal: float | None
    """What the ratio of ours to the base should reach, or not exceed."""
    kernels: bool
    """Whether ours computed with kernels of its own."""
    at_least: bool = True
    base_name: str = "llama-server"
    notes: dict[str, float] = field(default_factory=dict)
    """Other figures of the same scene, by name, which are kept but have no goal."""

    @property
    def ratio(self) -> float:
        """The median of the ratios of the rounds."""
        pairs = zip(self.ours, self.base, strict=True)
        return statistics.median(ours / base for ours, base in pairs)

    @property
    def is_reached(self) -> bool | None:
        """Whether the ratio, as it is printed, reaches the goal; None without a goal."""
        if self.goal is None:
            return None
        ratio = round(self.ratio, 3)
        return ratio >= self.goal if self.at_least else ratio <= self.goal


def each(loads: list[Load], figure: Callable[[Load], float]) -> list[float]:
    """Return a figure of each round."""
    return [figure(load) for load in loads]
