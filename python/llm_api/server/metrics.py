"""What a monitoring system asks for: counters, gauges and histograms, as Prometheus reads them.

The engine counts for itself, and is asked when somebody looks; requests are counted when they
end. Nothing here is done for a token. Each metric is an entry of a table below, from which the
documentation comes too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from llm_api.errors import EngineClosedError

if TYPE_CHECKING:
    from llm_api._native import Measures
    from llm_api.server.health import Health
    from llm_api.server.ledger import Record

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4

_DURATIONS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)

_HistogramData = tuple[list[tuple[float, int]], int, float]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the engine has counted and measured."""

    stats: dict[str, int]
    measures: Measures


@dataclass(frozen=True, slots=True)
class Description:
    """One metric; a counter's name ends in _total, a time is in seconds."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()


def _engine(
    name: str,
    kind: Literal["counter", "gauge", "histogram"],
    text: str,
    read: Callable[[Snapshot], float | _HistogramData],
) -> tuple[Description, Callable[[Snapshot], float | _HistogramData]]:
    return Description(name, kind, text), read


def _stat(key: str) -> Callable[[Snapshot], float]:
    return lambda now: now.stats[key]


def _ratio(over: float, under: float) -> float:
    return over / under if under else 0.0


_OF_THE_ENGINE: Final = (
    _engine(
        "llamacpp:prompt_tokens_total",
        "counter",
        "tokens of prompts that were computed; what is computed again after a pause counts again",
        lambda now: now.measures["prompt_tokens"],
    ),
    _engine(
        "llamacpp:prompt_tokens_cached_total",
        "counter",
        "tokens of prompts that were in the pool already",
        _stat("prefix_tokens"),
    ),
    _engine(
        "llamacpp:prompt_seconds_total",
        "counter",
        "time spent on computing them; that of a decode is divided by the tokens in it",
        lambda now: now.measures["prompt_seconds"],
    ),
    _engine(
        "llamacpp:prompt_tokens_seconds",
        "gauge",
        "tokens of prompts a second, on average since the start",
        lambda now: _ratio(now.measures["prompt_tokens"], now.measures["prompt_seconds"]),
    ),
    _engine(
        "llamacpp:tokens_predicted_total",
        "counter",
        "tokens of replies",
        _stat("sampled_tokens"),
    ),
    _engine(
        "llamacpp:tokens_predicted_seconds_total",
        "counter",
        "time spent on decoding them",
        lambda now: now.measures["reply_seconds"],
    ),
    _engine(
        "llamacpp:predicted_tokens_seconds",
        "gauge",
        "tokens of replies a second, on average since the start, of all requests together",
        lambda now: _ratio(now.stats["sampled_tokens"], now.measures["reply_seconds"]),
    ),
    _engine("llamacpp:n_decode_total", "counter", "decodes that succeeded", _stat("decodes")),
    _engine(
        "llamacpp:n_busy_slots_per_decode",
        "gauge",
        "requests in a decode, on average since the start",
        lambda now: _ratio(now.measures["busy"], now.stats["decodes"]),
    ),
    _engine(
        "llamacpp:requests_processing",
        "gauge",
        "requests that are being computed",
        _stat("running"),
    ),
    _engine(
        "llamacpp:requests_deferred",
        "gauge",
        "requests that wait: in the queue, or paused",
        lambda now: now.stats["waiting"] + now.stats["paused"],
    ),
    _engine(
        "llm_api_time_to_first_token_seconds",
        "histogram",
        "from the submission of a request to its first token",
        lambda now: now.measures["first_token"],
    ),
    _engine(
        "llm_api_time_between_tokens_seconds",
        "histogram",
        "from each token of a reply to the next",
        lambda now: now.measures["between_tokens"],
    ),
    _engine("llm_api_queue_length", "gauge", "requests that have not begun", _stat("waiting")),
    _engine(
        "llm_api_requests_paused",
        "gauge",
        "requests that had to give their memory back, and will go on",
        _stat("paused"),
    ),
    _engine("llm_api_pool_cells", "gauge", "tokens that the pool can hold", _stat("cells_total")),
    _engine(
        "llm_api_pool_cells_used",
        "gauge",
        "those set aside for requests that run",
        _stat("cells_used"),
    ),
    _engine(
        "llm_api_pool_cells_cached",
        "gauge",
        "those that hold beginnings of prompts for requests to come, and give way to others",
        _stat("cells_cached"),
    ),
    _engine(
        "llm_api_pool_cells_evicted_total",
        "counter",
        "cached ones that gave way",
        _stat("cells_evicted"),
    ),
    _engine(
        "llm_api_prefix_hits_total",
        "counter",
        "requests that began with tokens that were in the pool already",
        _stat("prefix_hits"),
    ),
    _engine("llm_api_pauses_total", "counter", "pauses for want of memory", _stat("pauses")),
    _engine("llm_api_context_shifts_total", "counter", "context shifts", _stat("shifts")),
    _engine(
        "llm_api_engine_rebuilds_total",
        "counter",
        "how often the engine failed and made its memory anew",
        _stat("rebuilds"),
    ),
    _engine(
        "llm_api_cancels_total",
        "counter",
        "requests that the engine gave up because nobody wanted the reply any more",
        _stat("cancelled"),
    ),
)

_READY: Final = Description("llm_api_ready", "gauge", "1 while /health says ok, else 0")
_REQUESTS: Final = Description(
    "llm_api_requests_total",
    "counter",
    "requests that have ended; the finish reason is that of the post-mortem, or refused, or none "
    "where nothing is generated",
    ("endpoint", "finish_reason"),
)
_DURATION: Final = Description(
    "llm_api_request_duration_seconds",
    "histogram",
    "from the head of a request to the end of its reply, if it was not refused",
    ("endpoint",),
)
_REFUSALS: Final = Description(
    "llm_api_refusals_total",
    "counter",
    "requests that were answered by an error, by what was wrong",
    ("reason",),
)
_ABORTS: Final = Description(
    "llm_api_aborts_total",
    "counter",
    "replies broken off after their first byte: the inference failed, the reader was too slow, "
    "the server shut down, or a defect",
    ("cause",),
)
_LONGEST: Final = Description(
    "llamacpp:n_tokens_max", "gauge", "tokens of the longest request so far, prompt and reply"
)

DESCRIPTIONS: Final = (
    *(description for description, _ in _OF_THE_ENGINE),
    _LONGEST,
    _READY,
    _REQUESTS,
    _DURATION,
    _REFUSALS,
    _ABORTS,
)


class Metrics:
    """The metrics of one server."""

    def __init__(self, health: Health) -> None:
        self._registry = _Registry()
        self._registry.register(_EngineCollector(health))
        self._requests = self._counter(_REQUESTS)
        self._refusals = self._counter(_REFUSALS)
        self._aborts = self._counter(_ABORTS)
        self._duration = Histogram(
            _DURATION.name,
            _DURATION.help,
            _DURATION.labels,
            buckets=_DURATIONS,
            registry=self._registry,
        )
        self._longest = Gauge(_LONGEST.name, _LONGEST.help, registry=self._registry)
        self._longest_tokens = 0

    def _counter(self, description: Description) -> Counter:
        return Counter(
            description.name, description.help, description.labels, registry=self._registry
        )

    def note(self, record: Record) -> None:
        """Count a request that has ended."""
        endpoint = record.endpoint if record.endpoint != "-" else "none"
        if record.refusal is not None:
            self.note_refusal(record.refusal)
        if record.abort_cause is not None:
            self._aborts.labels(record.abort_cause).inc()
        has_begun = record.usage is not None and record.usage.prompt_tokens > 0
        is_refused = record.refusal is not None and not has_begun
        self._requests.labels(
            endpoint, "refused" if is_refused else record.finish_reason or "none"
        ).inc()
        if not is_refused and record.seconds is not None:
            self._duration.labels(endpoint).observe(record.seconds)
        if record.usage is not None:
            tokens = record.usage.prompt_tokens + record.usage.completion_tokens
            if tokens > self._longest_tokens:
                self._longest_tokens = tokens
                self._longest.set(tokens)

    def note_refusal(self, reason: str) -> None:
        """Count a refusal; `note` does it for those of requests."""
        self._refusals.labels(reason).inc()

    def text(self) -> str:
        """Write all of them out, in the text format."""
        return generate_latest(self._registry).decode()


class _Registry(CollectorRegistry):
    """Leaves out when each series was created, which would double their number."""

    def collect(self) -> Iterator[Metric]:
        for metric in super().collect():
            metric.samples = [
                sample for sample in metric.samples if not sample.name.endswith("_created")
            ]
            yield metric


class _EngineCollector(Collector):
    """Asks the engine; says nothing of it while there is none."""

    def __init__(self, health: Health) -> None:
        self._health = health

    def collect(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(_READY.name, _READY.help, float(self._health.status == "ok"))
        engine = self._health.engine
        if engine is None:
            return
        try:
            now = Snapshot(engine.stats(), engine.measures())
        except EngineClosedError:
            return
        for description, read in _OF_THE_ENGINE:
            yield _family(description, read(now))


def _family(description: Description, value: float | _HistogramData) -> Metric:
    name, text = description.name, description.help
    if isinstance(value, tuple):
        bounds, count, total = value
        buckets = [(str(float(bound)), float(below)) for bound, below in bounds]
        return HistogramMetricFamily(name, text, [*buckets, ("+Inf", count)], total)
    if description.kind == "counter":
        return CounterMetricFamily(name, text, value)
    return GaugeMetricFamily(name, text, value)
