"""Prompt templates: they make the prompt of a conversation, each part with its provenance."""

from typing import Protocol

from llm_api.conversation import Conversation
from llm_api.prompt import Prompt
from llm_api.templates.builtin import BUILTIN_NAMES, load_builtin
from llm_api.templates.errors import TemplateError
from llm_api.templates.go import GoPromptTemplate
from llm_api.templates.jinja import JinjaTemplate

__all__ = [
    "BUILTIN_NAMES",
    "PromptTemplate",
    "TemplateError",
    "load_builtin",
    "load_gguf",
    "load_go_template",
]


class PromptTemplate(Protocol):
    """What all kinds of templates have in common."""

    @property
    def needs_system_prompt(self) -> bool:
        """Whether it is of use only with a system prompt."""

    def render(self, conversation: Conversation, reply_prefix: str = "") -> Prompt:
        """Render the prompt, and the beginning of the reply after it.

        Raises TemplateError in the phase "exec" if the template fails.
        """


def load_go_template(source: str) -> PromptTemplate:
    """Parse a template in Go's language that defines "prompt".

    Raises TemplateError in the phase "parse" if it isn't one.
    """
    return GoPromptTemplate(source)


def load_gguf(source: str, bos_token: str, eos_token: str) -> PromptTemplate:
    """Compile the Jinja chat template of a model.

    Raises TemplateError in the phase "parse" if it isn't one.
    """
    return JinjaTemplate(source, bos_token, eos_token)
