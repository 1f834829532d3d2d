"""/predict: go on with a text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llm_api.form import parse_fields, read_predict_form
from llm_api.options import merge

if TYPE_CHECKING:
    from llm_api.config import Settings
    from llm_api.limits import Limits
    from llm_api.server.exchange import Request
    from llm_api.server.generations import Job, Reader


def predict_reader(settings: Settings, limits: Limits) -> Reader:
    """Make what turns requests into prompts: the client's own, control tokens and all."""

    def read(request: Request) -> Job:
        form = read_predict_form(parse_fields(request.query, request.body, limits.fields))
        return form.prompt, merge(settings.generation, form.options)

    return read
