"""Prompt templates: they make the prompt of a conversation, each part with its provenance.

A program uses one kind of them, if any. What parses and executes a language is imported with the
first template in it: together they would be a quarter of the time that all imports take.
"""

from typing import Protocol

from llm_api.conversation import Conversation
from llm_api.prompt import Prompt
from llm_api.templates.builtin import BUILTIN_NAMES, load_builtin
from llm_api.templates.errors import TemplateError

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
    from llm_api.templates.go import GoPromptTemplate  # noqa: PLC0415

    return GoPromptTemplate(source)


def load_gguf(source: str, bos_token: str, eos_token: str) -> PromptTemplate:
    """Compile the Jinja chat template of a model.

    Raises TemplateError in the phase "parse" if it isn't one.
    """
    from llm_api.templates.jinja import JinjaTemplate  # noqa: PLC0415

    return JinjaTemplate(source, bos_token, eos_token)
