"""The template language of Go's ``text/template``, with strings that remember who wrote them.

Templates are those of Go 1.26, to the letter; what can't be had is said here.  Functions can't be
values.  An execution is bounded (see `limits`), where Go's may run on.  Strings that come from the
data stay marked as data through every function, so that the caller can tell them from the
template's own text.
"""

from collections.abc import Iterable, Mapping

from llm_api.templates.gotemplate.execute import execute
from llm_api.templates.gotemplate.functions import BUILTINS, EXTRAS
from llm_api.templates.gotemplate.parse import Tree, parse_trees
from llm_api.templates.gotemplate.text import Stretch, Text
from llm_api.templates.gotemplate.values import GoStruct, Slice

__all__ = ["GoStruct", "Slice", "Stretch", "Template", "Text", "parse"]


class Template:
    """A parsed template, and those it defines."""

    def __init__(self, name: str, trees: Mapping[str, Tree]) -> None:
        self._name = name
        self._trees = trees

    def defines(self, name: str) -> bool:
        """Whether there is a template of this name."""
        return name in self._trees

    def execute_text(self, entry: str, data: object) -> Text:
        """Run the template named `entry` (the file's own for "") on the data.

        Raises TemplateError.
        """
        return execute(self._trees, entry or self._name, data)

    def execute(self, entry: str, data: object) -> list[Stretch]:
        """Run as `execute_text` does, and cut the output where its provenance changes."""
        return self.execute_text(entry, data).stretches()

    def execute_bytes(self, entry: str, data: object) -> bytes:
        """Run as `execute_text` does, and return the output's bytes."""
        return self.execute_text(entry, data).raw


def parse(source: str, funcs: Iterable[str] = (), name: str = "") -> Template:
    """Parse a template; `name` is that of its own text, `funcs` names functions beside Go's.

    The one such function is `json`.  Raises TemplateError.
    """
    functions = {*BUILTINS, *funcs}
    unknown = functions - BUILTINS.keys() - EXTRAS.keys()
    if unknown:
        raise ValueError(f"unknown template functions: {', '.join(sorted(unknown))}")
    return Template(name, parse_trees(source, name, functions))
