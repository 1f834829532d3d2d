"""A whole server process with a scripted engine, for tests that send signals.

Its argument is a JSON object: shutdown_timeout, and maybe certificate (two paths) and
api_key_file. Every reply begins with "begun "; a line on standard input is the rest of all of
them.
"""

from __future__ import annotations

import json
import sys
import threading

from llm_api.address import parse_address
from llm_api.api_keys import ApiKeys
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
    wanted = json.loads(sys.argv[1])
    paths, key_file = wanted.get("certificate"), wanted.get("api_key_file")
    settings = make_settings(
        shutdown_timeout=wanted["shutdown_timeout"],
        address=parse_address(wanted["address"], 0o600),
        certificate=Certificate(*paths) if paths else None,
        api_keys=ApiKeys(path=key_file) if key_file else None,
    )
    return serve(settings, engine, PlainTemplate())  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
