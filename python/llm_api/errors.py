"""Everything that this package raises on its own, but for values out of range (`OptionError`)."""

__all__ = [
    "EngineClosedError",
    "GenerationError",
    "LlmApiError",
    "ModelLoadError",
    "PromptEmptyError",
    "PromptTooLongError",
    "QueueFullError",
    "StopPatternError",
    "UnsupportedError",
]


class LlmApiError(Exception):
    """The base of all others; its text says what to change."""


class ModelLoadError(LlmApiError):
    """The model cannot be used: missing, not GGUF, truncated, unknown, too large."""


class UnsupportedError(LlmApiError):
    """The model cannot do what was asked for."""


class PromptEmptyError(LlmApiError):
    """The prompt has no token."""


class PromptTooLongError(LlmApiError):
    """The prompt leaves no room for a reply in the context."""

    def __init__(self, prompt_tokens: int, context: int) -> None:
        super().__init__(
            f"the prompt has {prompt_tokens} tokens, but the context is {context}: "
            "shorten the prompt or load the model with a larger context"
        )
        self.prompt_tokens = prompt_tokens
        self.context = context


class StopPatternError(LlmApiError):
    """A stop rule does not compile or is too big; `reason` is the parser's message."""

    def __init__(self, pattern: str, reason: str) -> None:
        super().__init__(f"the stop rule {pattern!r} cannot be used: {reason}")
        self.pattern = pattern
        self.reason = reason


class QueueFullError(LlmApiError):
    """As many requests are waiting as may."""

    def __init__(self, queue: int) -> None:
        super().__init__(f"the queue is full: {queue} requests are waiting")
        self.queue = queue


class EngineClosedError(LlmApiError):
    """The engine is closed, or belongs to the process that this one was forked from."""


class GenerationError(LlmApiError):
    """The reply broke off; what there is of it must not be taken for a whole one."""
