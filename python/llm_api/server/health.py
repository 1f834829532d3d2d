"""What state the server is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from llm_api.server.reply import Refusal

if TYPE_CHECKING:
    from llm_api.server.loading import ModelLoad
    from llm_api.server.stream import Engine

Status = Literal["loading", "ok", "rebuilding", "failed", "draining"]


class Health:
    """Whether generations can be started, and if not, why. Asked, never told."""

    def __init__(self) -> None:
        self.load: ModelLoad | None = None
        """What brings the model, once it is on its way."""
        self.engine: Engine | None = None
        """The model, once it is loaded."""
        self.is_draining = False
        """The server shuts down."""

    @property
    def status(self) -> Status:
        """One word for it."""
        if self.is_draining:
            return "draining"
        if self.engine is None:
            return "loading"
        match self.engine.state:
            case "ready":
                return "ok"
            case "closed":
                return "draining"
            case state:
                return state

    def report(self) -> tuple[int, dict[str, object]]:
        """Tell it to whoever watches the server: an HTTP status, and an object for JSON."""
        status = self.status
        told: dict[str, object] = {"status": status}
        if status == "loading":
            told["progress"] = round(self.load.progress, 3) if self.load else 0.0
        return 200 if status == "ok" else 503, told

    def check(self) -> None:
        """Raise Refusal if no generation can be started.

        While the engine is being rebuilt they can: they wait for it in the queue.
        """
        match self.status:
            case "loading":
                raise Refusal(
                    503, "the model is being loaded", {"Retry-After": "1"}, reason="loading"
                )
            case "failed":
                raise Refusal(
                    503,
                    "the engine has failed; the server must be started again",
                    reason="engine_failed",
                )
            case "draining":
                raise Refusal(503, "server is shutting down", reason="shutting_down")
