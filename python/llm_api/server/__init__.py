"""The HTTP server: /predict, /chat, and what became of each request."""

from llm_api.server.lifecycle import serve
from llm_api.server.listening import ServeError

__all__ = ["ServeError", "serve"]
