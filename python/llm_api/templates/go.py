"""Prompt templates in Go's template language: what they see of a conversation."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from llm_api.conversation import Conversation, Message
from llm_api.prompt import Prompt, Span, join_spans, with_reply_prefix
from llm_api.templates import gotemplate
from llm_api.templates.errors import TemplateError
from llm_api.templates.gotemplate import GoStruct, Text

__all__ = ["ChatData", "GoPromptTemplate"]

_ENTRY = "prompt"


@dataclass(frozen=True, slots=True)
class _MessageData(GoStruct):
    message: Message

    go_type: ClassVar = "main.Message"
    go_fields: ClassVar = {
        "Role": lambda data: Text.trusted(data.message.role),
        "Text": lambda data: data.message.text,
    }


@dataclass(frozen=True, slots=True)
class ChatData(GoStruct):
    """The data of a prompt template; the system prompt, if any, is the first of the messages."""

    system_prompt: str
    messages: Sequence[Message]

    def _messages_without_system_prompt(self) -> Sequence[Message]:
        has_system = bool(self.messages) and self.messages[0].role == "system"
        return self.messages[1:] if has_system else self.messages

    def _last_message_of(self, role: str) -> str:
        if not self.messages:
            raise LookupError("no messages in conversation")
        for message in reversed(self.messages[-2:]):
            if message.role == role:
                return message.text
        raise LookupError(f"no {role} messages in conversation")

    go_type: ClassVar = "main.Conversation"
    go_fields: ClassVar = {
        "SystemPrompt": lambda data: data.system_prompt,
        "Messages": lambda data: _wrapped(data.messages),
    }
    go_methods: ClassVar = {
        "MessagesWithoutSystemPrompt": lambda data: _wrapped(
            data._messages_without_system_prompt()
        ),
        "LastMessageOfUser": lambda data: data._last_message_of("user"),
        "LastMessageOfAssistant": lambda data: data._last_message_of("assistant"),
    }


def _wrapped(messages: Iterable[Message]) -> list[_MessageData]:
    return [_MessageData(message) for message in messages]


class GoPromptTemplate:
    """A template file whose definition of "prompt" makes the prompt."""

    def __init__(self, source: str, *, needs_system_prompt: bool = False) -> None:
        """Parse the template; raises TemplateError if it doesn't parse or defines no "prompt"."""
        self.needs_system_prompt = needs_system_prompt
        self._template = gotemplate.parse(source)
        if not self._template.defines(_ENTRY):
            raise TemplateError("parse", None, f'the template doesn\'t define "{_ENTRY}"')

    def render(self, conversation: Conversation, reply_prefix: str = "") -> Prompt:
        """Render the prompt; raises TemplateError if the template fails."""
        data = ChatData(conversation.system_prompt, conversation.all_messages)
        stretches = self._template.execute(_ENTRY, data)
        prompt = join_spans(Span(stretch.text, stretch.is_data) for stretch in stretches)
        return with_reply_prefix(prompt, reply_prefix)
