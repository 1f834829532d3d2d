"""The chat template that a model brings along, written in Jinja."""

import threading
from collections.abc import Iterable, Iterator
from types import TracebackType

from jinja2 import Template, TemplateSyntaxError

from llm_api.conversation import Conversation
from llm_api.prompt import Prompt, Span, join_spans, with_reply_prefix
from llm_api.templates.errors import TemplateError
from llm_api.templates.jinja.sandbox import ChatEnvironment
from llm_api.templates.jinja.tracked import Tracked, data, trusted

__all__ = ["JinjaTemplate"]


class JinjaTemplate:
    """A model's chat template; renders like Hugging Face transformers do."""

    needs_system_prompt = False

    def __init__(self, source: str, bos_token: str = "", eos_token: str = "") -> None:
        """Compile the template.

        Raises TemplateError if it isn't one or uses what the sandbox doesn't have.
        """
        self._environment = ChatEnvironment()
        self._tokens = {"bos_token": trusted(bos_token), "eos_token": trusted(eos_token)}
        self._lock = threading.Lock()  # an environment renders one conversation at a time
        try:
            self._template = self._environment.from_string(source)
        except TemplateSyntaxError as error:
            raise TemplateError("parse", error.lineno, error.message or "syntax error") from error
        except Exception as error:
            # Python's own limits on the depth of nesting or the digits of a number.
            raise TemplateError("parse", None, _reason(error)) from error

    def render(self, conversation: Conversation, reply_prefix: str = "") -> Prompt:
        """Render the prompt; raises TemplateError if the template refuses or fails."""
        variables = {
            "messages": [
                {"role": trusted(message.role), "content": data(message.text)}
                for message in conversation.all_messages
            ],
            "tools": None,
            "documents": None,
            "add_generation_prompt": True,
            **self._tokens,
        }
        with self._lock:
            self._environment.start()
            try:
                context = self._template.new_context(variables)
                prompt = join_spans(self._spans(self._template.root_render_func(context)))
            except Exception as error:  # a template can raise whatever Python can
                line = _line(self._template, error.__traceback__)
                raise TemplateError("exec", line, _reason(error)) from error
        return with_reply_prefix(prompt, reply_prefix)

    def _spans(self, chunks: Iterable[str]) -> Iterator[Span]:
        for chunk in chunks:
            self._environment.measured(chunk)
            if isinstance(chunk, Tracked):
                yield from chunk.spans()
            else:
                yield Span(chunk, is_data=True)


def _reason(error: Exception) -> str:
    text = str(error)
    if isinstance(error, RecursionError):
        return "the template is nested or calls itself too deeply"
    return text or type(error).__name__


def _line(template: Template, traceback: TracebackType | None) -> int | None:
    """Return the template's line where the innermost of its code failed."""
    line = None
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__jinja_template__") is template:
            line = template.get_corresponding_lineno(traceback.tb_lineno)
        traceback = traceback.tb_next
    return line
