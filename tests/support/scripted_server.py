"""A whole server process with a scripted engine, for tests that send signals.

Its argument is a JSON object: shutdown_timeout, and maybe certificate (two paths), api_key_file,
and load, which is "held" for a model whose load is in the hands of the test, or "deaf" if it heeds
no cancel either.

Every reply begins with "begun "; a line on standard input is the rest of all of them. While a load
is held, a line is a number for its progress, "done", or else why it fails.
"""

from __future__ import annotations

import json
import queue
import sys
import threading

from llm_api.address import parse_address
from llm_api.api_keys import ApiKeys
from llm_api.errors import EngineClosedError, ModelLoadError
from llm_api.server import loading, serve
from llm_api.tls import Certificate

from .scripted import ScriptedEngine
from .serving import PlainTemplate, make_settings

_CANCELLED = "cancelled"


class HeldLoading:
    """A load as the server sees it."""

    def __init__(self) -> None:
        self.progress = 0.0
        self._lines: queue.Queue[str] = queue.Queue()

    def read_lines(self) -> None:
        """Read the lines that are for the load, on a thread that may be left behind."""
        for line in iter(sys.stdin.readline, ""):
            self._lines.put(line.strip())
            if line == "done\n":
                break

    def cancel(self) -> None:
        self._lines.put(_CANCELLED)

    def wait(self, is_deaf: bool) -> None:
        """Return when the load is done; raises if it fails."""
        while (line := self._lines.get()) != "done":
            if line == _CANCELLED:
                if not is_deaf:
                    raise EngineClosedError
                continue
            try:
                self.progress = float(line)
            except ValueError:
                raise ModelLoadError(line) from None


def main() -> int:
    wanted = json.loads(sys.argv[1])
    engine = ScriptedEngine(lambda job: job.say("begun "))
    held = HeldLoading()

    def obey() -> None:
        if "load" in wanted:
            held.read_lines()
        for line in iter(sys.stdin.readline, ""):
            for job in tuple(engine.running):
                job.end("stop", None, line.strip())

    def load(_: object) -> loading.Model:
        if "load" in wanted:
            held.wait(is_deaf=wanted["load"] == "deaf")
        return loading.Model(engine, PlainTemplate())  # type: ignore[arg-type]

    threading.Thread(target=obey, daemon=True).start()
    loading.Loading = lambda: held  # type: ignore[assignment,misc]
    paths, key_file = wanted.get("certificate"), wanted.get("api_key_file")
    settings = make_settings(
        shutdown_timeout=wanted["shutdown_timeout"],
        address=parse_address(wanted["address"], 0o600),
        certificate=Certificate(*paths) if paths else None,
        api_keys=ApiKeys(path=key_file) if key_file else None,
    )
    return serve(settings, load)


if __name__ == "__main__":
    sys.exit(main())
