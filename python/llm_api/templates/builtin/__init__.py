"""The prompt templates that come with the program, a file each."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_api.templates.go import GoPromptTemplate

__all__ = ["BUILTIN_NAMES", "load_builtin"]

BUILTIN_NAMES = ("llama-2", "vicuna_v1.1", "chatml", "llama-3", "gemma", "mistral", "phi")

_NEED_SYSTEM_PROMPT = frozenset({"llama-2"})


def load_builtin(name: str) -> "GoPromptTemplate":
    """Load the template of a name in `BUILTIN_NAMES`; raises KeyError for any other."""
    if name not in BUILTIN_NAMES:
        raise KeyError(name)
    # Imported late: most programs load none.
    from importlib import resources  # noqa: PLC0415

    from llm_api.templates.go import GoPromptTemplate  # noqa: PLC0415

    file = resources.files(__package__) / f"{name}.tmpl"
    return GoPromptTemplate(
        file.read_text(encoding="utf-8"), needs_system_prompt=name in _NEED_SYSTEM_PROMPT
    )
