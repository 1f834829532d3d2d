"""The generations in progress, from a request to its record."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from llm_api.prompt import Prompt, prompt_text
from llm_api.server.refusals import refusal_for
from llm_api.server.reply import Refusal
from llm_api.server.shares import Shares
from llm_api.server.stream import Engine, Stream

if TYPE_CHECKING:
    from llm_api.limits import Limits
    from llm_api.server.exchange import Request
    from llm_api.server.peers import PeerWatch
    from llm_api.server.reply import Reply

Job = tuple[Prompt | str, Mapping[str, object]]
"""What the engine is to do: a prompt, and a value for each generation option."""

Reader = Callable[["Request"], Job]

_log: Final = logging.getLogger("llm_api.prompts")

_SHORT_CHARS: Final = 16 << 10
"""A longer prompt becomes tokens on another thread, so that the event loop does not wait."""


class Generations:
    """Starts generations and follows them to their end."""

    def __init__(self, limits: Limits, peers: PeerWatch, *, log_texts: bool) -> None:
        self._limits = limits
        self._peers = peers
        self._log_texts = log_texts
        self._shares = Shares(limits.per_client)
        self.running: set[Stream] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def serve(self, engine: Engine, read: Reader, request: Request, reply: Reply) -> None:
        """Start what a request asks for. Raises Refusal if that cannot be."""
        record = request.record

        def note_end(stream: Stream) -> None:
            give_back()
            end_watch()
            self._forget(stream)
            assert stream.end is not None
            is_lost = not stream.was_delivered and stream.end.finish_reason != "error"
            record.status = reply.status
            record.finish_reason = "cancelled" if is_lost else stream.end.finish_reason
            record.usage = stream.end.usage
            record.refusal = stream.refusal.reason if stream.refusal else None
            record.abort_cause = stream.abort_cause
            record.close()
            if stream.transcript is not None:
                _log.info("%s reply %s", record.id, json.dumps("".join(stream.transcript)))

        give_back = self._shares.take(record.client)
        stream = Stream(reply, engine, self._limits, note_end)
        try:
            prompt, options = read(request)
            text = prompt if isinstance(prompt, str) else prompt_text(prompt)
            if self._log_texts:
                _log.info("%s prompt %s", record.id, json.dumps(text))
                stream.transcript = []
            self._check_size(text)
            if len(text) <= _SHORT_CHARS:
                stream.begin(prompt, options)
            else:
                stream.begin_long(prompt, options)
        except Exception as error:
            give_back()
            refusal = refusal_for(error)
            if refusal is None:
                raise
            raise refusal from error
        end_watch = self._peers.watch(reply.connection)
        self.running.add(stream)
        self._idle.clear()

    def _check_size(self, text: str) -> None:
        size, limit = len(text.encode()), self._limits.prompt
        if size > limit:
            raise Refusal(413, f"the prompt is too large: {size} bytes, at most {limit} are taken")

    async def wait_for_all(self) -> None:
        """Wait until no generation is in progress."""
        await self._idle.wait()

    def cut_all(self) -> None:
        """Stop every generation and break off its reply."""
        for stream in tuple(self.running):
            stream.cut("shutdown")

    def _forget(self, stream: Stream) -> None:
        self.running.discard(stream)
        if not self.running:
            self._idle.set()
