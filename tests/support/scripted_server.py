"""A whole server process with a scripted engine, for tests that send signals.

Every reply begins with "begun "; a line on standard input is the rest of all of them.
"""

from __future__ import annotations

import sys
import threading

from llm_api.server import serve
from llm_api.tls import Certificate

from .scripted import ScriptedEngine
from .serving import PlainTemplate, make_settings


def main() -> int:
    engine = ScriptedEngine(lambda job: job.say("begun "))

    def obey() -> None:
        for line in sys.stdin:
            for job in tuple(engine.running):
                job.end("stop", None, line.strip())

    threading.Thread(target=obey, daemon=True).start()
    timeout, *paths = sys.argv[1:]
    certificate = Certificate(*paths) if paths else None
    settings = make_settings(shutdown_timeout=float(timeout), certificate=certificate)
    return serve(settings, engine, PlainTemplate())  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
