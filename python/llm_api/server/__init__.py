"""The HTTP server: /predict, /chat, and what became of each request."""

from llm_api.server.lifecycle import ServeError, serve

__all__ = ["ServeError", "serve"]
