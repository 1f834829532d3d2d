"""Which error is told to the client how."""

from __future__ import annotations

from llm_api.errors import (
    EngineClosedError,
    GenerationError,
    PromptEmptyError,
    PromptTooLongError,
    QueueFullError,
    StopPatternError,
    UnsupportedError,
)
from llm_api.form import FormError
from llm_api.server.reply import Refusal
from llm_api.templates.errors import TemplateError


def refusal_for(error: Exception) -> Refusal | None:
    """Return the reply to an error that the client or the load has caused; None for a defect."""
    match error:
        case FormError() | StopPatternError() | PromptEmptyError() | UnsupportedError():
            return Refusal(400, str(error))
        case PromptTooLongError():
            return Refusal(
                400,
                f"the prompt has {error.prompt_tokens} tokens and the context {error.context}: "
                "shorten the prompt, or start the server with a larger -context",
            )
        case TemplateError():
            return Refusal(500, f"the prompt template failed: {error}", reason="template_failed")
        case GenerationError():
            return Refusal(500, "inference failed", reason="inference_failed")
        case QueueFullError():
            return Refusal(503, "server is busy", {"Retry-After": "1"}, reason="queue_full")
        case EngineClosedError():
            return Refusal(503, "server is shutting down", reason="shutting_down")
    return None
