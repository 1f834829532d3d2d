"""An engine that does what a test tells it to, behind the interface of `llm_api.Engine`."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping

from llm_api.errors import QueueFullError
from llm_api.events import End, FinishReason, Listener, Usage
from llm_api.prompt import Prompt, prompt_text

SECONDS = 10
"""How long a test waits for what must come."""


class Job:
    """One request that the engine has taken; `say` and `end` may be called on any thread."""

    def __init__(
        self,
        engine: ScriptedEngine,
        job_id: int,
        prompt: Prompt | str,
        options: Mapping[str, object],
        listener: Listener,
    ) -> None:
        self.id = job_id
        self.prompt = prompt
        self.text = prompt if isinstance(prompt, str) else prompt_text(prompt)
        self.options = options
        self.cancelled = threading.Event()
        self.ended = threading.Event()
        self._engine = engine
        self._listener = listener
        self._tokens = 0

    def say(self, *texts: str) -> None:
        """Deliver texts as one batch."""
        self._tokens += len(texts)
        self._post(*(lambda text=text: self._listener.on_text(text) for text in texts))

    def end(self, reason: FinishReason = "stop", error: str | None = None, *last: str) -> None:
        """Deliver last texts and the end as one batch; the first end counts."""
        self._tokens += len(last)
        self._post(
            *(lambda text=text: self._listener.on_text(text) for text in last),
            lambda: self._finish(reason, error),
        )

    def fail(self, *last: str) -> None:
        self.end("error", "decode failed: scripted", *last)

    def _finish(self, reason: FinishReason, error: str | None) -> None:
        if self.ended.is_set():
            return
        self.ended.set()
        self._engine.running.discard(self)
        usage = Usage(
            prompt_tokens=len(self.text.split()),
            cached_tokens=0,
            completion_tokens=self._tokens,
            queue_seconds=0.001,
            prefill_seconds=0.002,
            decode_seconds=0.003,
            pauses=0,
        )
        self._listener.on_end(End(reason, error, usage))

    def _post(self, *calls: Callable[[], None]) -> None:
        def deliver() -> None:
            for call in calls:
                if not self.ended.is_set():
                    call()

        self._engine.loop.call_soon_threadsafe(deliver)


class ScriptedEngine:
    """Runs `script` on every job it takes, or hands the job to the test through `jobs`."""

    def __init__(self, script: Callable[[Job], None] | None = None, capacity: int = 1000) -> None:
        self.script = script
        self.capacity = capacity
        self.refusal: Exception | None = None
        """Raised instead of taking a job."""
        self.jobs: queue.Queue[Job] = queue.Queue()
        self.running: set[Job] = set()
        self.state = "ready"
        self.loop: asyncio.AbstractEventLoop
        self._by_id: dict[int, Job] = {}
        self._ids = itertools.count(1)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop

    def start(self, prompt: Prompt | str, options: Mapping[str, object], listener: Listener) -> int:
        if self.refusal is not None:
            raise self.refusal
        if len(self.running) >= self.capacity:
            raise QueueFullError(self.capacity)
        job = Job(self, next(self._ids), prompt, options, listener)
        self._by_id[job.id] = job
        self.running.add(job)
        if self.script is not None:
            self.script(job)
        else:
            self.jobs.put(job)
        return job.id

    def cancel(self, request_id: int) -> None:
        job = self._by_id[request_id]
        job.cancelled.set()
        job.end("cancelled")

    def stats(self) -> dict[str, int]:
        return defaultdict(int)

    def measures(self) -> dict[str, object]:
        return defaultdict(int, first_token=([], 0, 0.0), between_tokens=([], 0, 0.0))

    def close(self) -> None:
        self.state = "closed"

    def next_job(self) -> Job:
        return self.jobs.get(timeout=SECONDS)


def echo(job: Job) -> None:
    """Answer with the prompt, a word at a time."""
    words = job.text.split(" ")
    for word in words[:-1]:
        job.say(f"{word} ")
    job.end("stop", None, words[-1])
