"""/chat: answer the last message of a conversation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_api.conversation import Conversation, ConversationError
from llm_api.form import FormError, parse_fields, read_chat_form
from llm_api.options import merge

if TYPE_CHECKING:
    from llm_api.config import Settings
    from llm_api.limits import Limits
    from llm_api.server.exchange import Request
    from llm_api.server.generations import Job, Reader
    from llm_api.templates import PromptTemplate


def chat_reader(settings: Settings, limits: Limits, template: PromptTemplate) -> Reader:
    """Make what turns requests into prompts: the template's, the client's texts being data."""

    def read(request: Request) -> Job:
        form = read_chat_form(parse_fields(request.query, request.body, limits.fields))
        system_prompt = settings.chat.system_prompt if form.system is None else form.system
        if template.needs_system_prompt and not system_prompt:
            raise FormError("the field system is empty; the prompt template needs a system prompt")
        try:
            conversation = Conversation.from_texts(form.messages, system_prompt)
        except ConversationError as error:
            raise FormError(f"field messages: {error}") from error
        prompt = template.render(conversation, form.reply_prefix)
        return prompt, merge(settings.generation, form.options)

    return read
