"""A language model that answers many requests at once.

The engine proper is Rust (`llm_api._native`) and has a thread of its own, which owns the model.
Here are its faces: `Engine.generate` and `Engine.chat` for programs, with threads or with asyncio,
and `Engine.attach` and `Engine.start` for a server that has an event loop.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Literal, Self

from llm_api import _native
from llm_api.conversation import Conversation
from llm_api.delivery import Delivery
from llm_api.errors import EngineClosedError, UnsupportedError
from llm_api.events import End, EngineState, FinishReason, Listener, Usage
from llm_api.generation import Generation, Mailbox
from llm_api.models import resolve_model
from llm_api.options import DEFAULTS, check_generation, merge
from llm_api.prompt import Prompt, Span

if TYPE_CHECKING:
    from llm_api.templates import PromptTemplate

__all__ = ["End", "Engine", "FinishReason", "Generation", "Listener", "Loading", "Usage"]

Loading = _native.Loading

_BACKENDS: Final = Path(__file__).parent / "backends"

_log = logging.getLogger("llm_api.engine")


class Engine:
    """A loaded model.

    All methods may be called from any thread, unless they say otherwise, and none waits for the
    model but the constructor and `close`. An engine does not survive a fork: in the child it is
    closed.
    """

    def __init__(  # noqa: PLR0913 - each is an option of its own, given by name
        self,
        model: str | PathLike[str],
        *,
        context: int = 512,
        pool: int = 0,
        parallel: int = 4,
        queue: int = 16,
        threads: int = 0,
        kernels: Literal["auto", "off"] = "auto",
        prompt_lookup: bool = True,
        gpu_layers: int = 0,
        cache_type_k: str = "f16",
        cache_type_v: str = "f16",
        flash_attn: Literal["auto", "on", "off"] = "auto",
        rope_freq_base: float = 0.0,
        rope_freq_scale: float = 0.0,
        loading: Loading | None = None,
    ) -> None:
        """Load a model, a path or ``pkg:PACKAGE[/FILE]``.

        `context` is how many tokens one request may use, prompt and reply together; `pool` how
        many all of them may that are worked on at once, 0 for `context` times `parallel`.
        `parallel` requests are worked on at once, and `queue` more may wait. 0 `threads` are as
        many as there are cores, and 0 as a RoPE frequency is what the file says. `kernels` "off"
        leaves all computing to llama.cpp's own kernels. `cache_type_k` and `cache_type_v` are what
        keys and values are stored as in the context memory, by ggml's names.
        Without `prompt_lookup` what a text repeats is computed token by token, too.

        Meanwhile other threads may ask `loading.progress`, from 0 to 1, or call `loading.cancel()`.

        Raises ModelLoadError, UnsupportedError, or EngineClosedError after a cancel.
        """
        config: _native.EngineConfig = {
            "model": resolve_model(model) if isinstance(model, str) else model,
            "backends": _BACKENDS,
            "context": context,
            "pool": pool or context * parallel,
            "parallel": parallel,
            "queue": queue,
            "prompt_lookup": prompt_lookup,
            "threads": threads,
            "kernels": kernels == "auto",
            "gpu_layers": gpu_layers,
            "cache_type_k": cache_type_k,
            "cache_type_v": cache_type_v,
            "flash_attn": flash_attn,
            "rope_freq_base": rope_freq_base,
            "rope_freq_scale": rope_freq_scale,
        }
        self._set_up(_native.Engine(config, loading or Loading()))
        info = self.info
        _log.info(
            "llama.cpp %s, CPU variant %s, devices %s",
            _native.llama_version,
            info["cpu_variant"],
            ", ".join(info["devices"]),
        )
        _log.info("kernels: %s", info["kernels"])
        if failure := info["kernels_failure"]:
            _log.warning("kernels not used: %s", failure)
        for failure in info["backend_failures"]:
            _log.warning("backend not used: %s", failure)
        if 0 < info["trained_context"] < context:
            _log.warning(
                "the context of %d tokens is longer than the %d that the model was trained with: "
                "replies may lose their sense beyond that",
                context,
                info["trained_context"],
            )

    @classmethod
    def scripted(
        cls, spec: str, *, context: int = 512, pool: int = 0, parallel: int = 4, queue: int = 16
    ) -> Self:
        """Make an engine with a scripted model in place of a real one: a testing aid.

        `spec` says what it does, for example ``"echo"`` or ``"delay=5ms;text:Hello"``; the whole
        language is described in rust/engine/src/model/fake/spec.rs.
        """
        self = cls.__new__(cls)
        size = pool or context * parallel
        self._set_up(_native.Engine.scripted(spec, context, size, parallel, queue))
        return self

    def _set_up(self, native: _native.Engine) -> None:
        self._native = native
        self._delivery = Delivery(native)
        self._process = os.getpid()
        self._info = native.info
        self._template: PromptTemplate | None = None
        self.chat_template = native.chat_template
        self.bos_text = native.bos_text
        self.eos_text = native.eos_text

    @property
    def info(self) -> "_native.EngineInfo":
        """Facts about the model, its memory and the backends in use."""
        return self._info.copy()

    @property
    def state(self) -> EngineState:
        """Whether requests are computed: "ready", "rebuilding", "failed" or "closed".

        After a failure of the engine its memory is made anew, and requests wait for that. If it
        fails again and again, the engine refuses all of them.
        """
        try:
            return self._native.state
        except EngineClosedError:
            return "closed"

    def stats(self) -> dict[str, int]:
        """Return the state and the counters of the engine, as of its latest step."""
        return self._native.stats()

    def measures(self) -> "_native.Measures":
        """Return what the engine has measured of its work, as of its latest step."""
        return self._native.measures()

    def tokenize(self, prompt: Prompt | str) -> list[int]:
        """Return the tokens of a prompt, as a request with it would have them."""
        return self._native.tokenize(_pairs(prompt))

    def generate(self, prompt: Prompt | str, **options: object) -> Generation:
        """Continue a prompt.

        The options are those of the server, in snake case (`llm_api.options`). A string may hold
        control tokens of the model; in a `Prompt`, spans that are data may not.

        Raises OptionError, StopPatternError, PromptEmptyError, PromptTooLongError,
        UnsupportedError, QueueFullError or EngineClosedError, all before anything is computed.
        """
        mailbox = Mailbox(may_block=lambda: not self._delivery.is_on_this_thread())
        request_id = self.start(prompt, merge(DEFAULTS, check_generation(options)), mailbox)
        return Generation(request_id, mailbox, self.cancel)

    def chat(
        self,
        messages: Iterable[tuple[str, str] | Mapping[str, str]],
        *,
        system: str = "",
        reply_prefix: str = "",
        template: "PromptTemplate | None" = None,
        **options: object,
    ) -> Generation:
        """Answer the last message of a conversation.

        A message is a pair of role ("system", "user", "assistant") and text, or a dict of "role"
        and "content". Without a `template` (`llm_api.templates`) the model's own is used; raises
        UnsupportedError if it has none. Otherwise like `generate`.
        """
        pairs = (
            message if isinstance(message, tuple) else (message["role"], message["content"])
            for message in messages
        )
        conversation = Conversation.from_messages(pairs, system)
        prompt = (template or self._own_template()).render(conversation, reply_prefix)
        return self.generate(prompt, **options)

    def _own_template(self) -> "PromptTemplate":
        if self._template is None:
            if self.chat_template is None:
                raise UnsupportedError("the model has no chat template: give one")
            from llm_api.templates import load_gguf  # noqa: PLC0415 - not needed by most

            self._template = load_gguf(self.chat_template, self.bos_text, self.eos_text)
        return self._template

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Call listeners on `loop` from now on; to be called on its thread.

        All events of a step of the engine come in one call of the loop.
        """
        self._delivery.attach(loop)

    def start(self, prompt: Prompt | str, options: Mapping[str, object], listener: Listener) -> int:
        """Start a request that a listener follows, and return its id.

        `options` has all generation options (`llm_api.options.merge`). The listener is called on
        the loop given to `attach`, or else on a thread of the engine's; it must not block. If it
        raises, the error is logged and the request cancelled, and it is not called again.

        Raises what `generate` raises, but for OptionError.
        """
        if self._process != os.getpid():
            raise EngineClosedError(
                "the engine belongs to the process that loaded it: load one after the fork"
            )
        return self._delivery.submit(_pairs(prompt), dict(options), listener)

    def cancel(self, request_id: int) -> None:
        """End a request before the next step of the engine; its end is still delivered.

        Has no effect on a request that has ended.
        """
        # Closing has ended it.
        with contextlib.suppress(EngineClosedError):
            self._native.cancel(request_id)

    def close(self) -> None:
        """End all requests as cancelled, wait for the engine's thread and free the memory.

        With an attached loop, to be called on its thread or after it has stopped.
        """
        if self._process == os.getpid():
            self._delivery.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _pairs(prompt: Prompt | str) -> list[tuple[str, bool]]:
    spans = (Span(prompt, is_data=False),) if isinstance(prompt, str) else prompt
    return [(span.text, span.is_data) for span in spans]
