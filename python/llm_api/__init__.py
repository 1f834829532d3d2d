"""Inference with large language models in GGUF format: a server, and a library.

    from llm_api import Engine

    with Engine("model.gguf") as engine:
        for text in engine.generate("The capital of France is", tokens=32):
            print(text, end="", flush=True)

Importing the package loads nothing; the engine comes with the first use of `Engine`.
"""

from typing import TYPE_CHECKING

from llm_api.conversation import Conversation, ConversationError, Message
from llm_api.errors import (
    EngineClosedError,
    GenerationError,
    LlmApiError,
    ModelLoadError,
    PromptEmptyError,
    PromptTooLongError,
    QueueFullError,
    StopPatternError,
    UnsupportedError,
)
from llm_api.events import End, Usage
from llm_api.options import OptionError
from llm_api.prompt import Prompt, Span
from llm_api.templates.errors import TemplateError

if TYPE_CHECKING:
    from llm_api.engine import Engine
    from llm_api.generation import Generation

__all__ = [
    "Conversation",
    "ConversationError",
    "End",
    "Engine",
    "EngineClosedError",
    "Generation",
    "GenerationError",
    "LlmApiError",
    "Message",
    "ModelLoadError",
    "OptionError",
    "Prompt",
    "PromptEmptyError",
    "PromptTooLongError",
    "QueueFullError",
    "Span",
    "StopPatternError",
    "TemplateError",
    "UnsupportedError",
    "Usage",
]


def __getattr__(name: str) -> object:
    if name in {"Engine", "Generation"}:
        from llm_api import engine  # noqa: PLC0415

        return getattr(engine, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
