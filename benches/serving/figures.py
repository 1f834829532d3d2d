"""Figures of a load, and rows of the table."""

import itertools
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from serving.dialects import Stream
from serving.servers import Load, LoadError


def speed(load: Load) -> float:
    """Return tokens a second of all streams together, from the first request to the last text."""
    streams = load.streams
    seconds = max(s.last for s in streams) - min(s.sent for s in streams)
    return sum(s.tokens for s in streams) / seconds


def decode_speed(load: Load) -> float:
    """Return tokens a second while all streams run: without prompts, first and last steps.

    Each stream is timed from piece to piece of its own. The texts of a step come one after the
    other, so that a common end would cut most streams' last text off, and not the time it took.
    """
    begin = max(s.first for s in load.streams)
    end = min(s.last for s in load.streams)
    return sum(_speed_between(s, begin, end) for s in load.streams)


def _speed_between(stream: Stream, begin: float, end: float) -> float:
    times = [when for when, _ in stream.pieces if begin <= when <= end]
    if len(times) < 2 or times[0] == times[-1]:
        raise LoadError("the streams did not run together for two steps")
    tokens_a_piece = stream.tokens / len(stream.pieces)
    return tokens_a_piece * (len(times) - 1) / (times[-1] - times[0])


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
    notes: dict[str, list[float]] = field(default_factory=dict)
    """Other figures of the same rounds, by name and unit, which have no goal."""
    base_notes: dict[str, list[float]] = field(default_factory=dict)
    """Those of the base, by the same names."""
    remark: str = ""
    """What the reader has to know of this row."""

    @property
    def ratios(self) -> list[float]:
        """The ratios of the rounds."""
        return [ours / base for ours, base in zip(self.ours, self.base, strict=True)]

    @property
    def ratio(self) -> float:
        """Their median."""
        return statistics.median(self.ratios)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third quartile of the ratios, within what was measured."""
        ratios = self.ratios
        if len(ratios) == 1:
            return ratios[0], ratios[0]
        first, _, third = statistics.quantiles(ratios, n=4, method="inclusive")
        return first, third

    @property
    def verdict(self) -> str:
        """Whether the ratios, as they are printed, reach the goal; empty without a goal.

        Undecided is what has the goal between its quartiles.
        """
        if self.goal is None:
            return ""
        first, third = (self._reaches(round(ratio, 3)) for ratio in self.quartiles)
        if first != third:
            return "undecided"
        return "reached" if first else "not reached"

    def _reaches(self, ratio: float) -> bool:
        assert self.goal is not None
        return ratio >= self.goal if self.at_least else ratio <= self.goal


def each(loads: list[Load], figure: Callable[[Load], float]) -> list[float]:
    """Return a figure of each round."""
    return [figure(load) for load in loads]


def client_share(load: Load) -> float:
    """Return the load client's share of a core."""
    return load.client_share
