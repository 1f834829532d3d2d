"""The server under soak: a process with the real engine and a model that repeats its prompt.

Its arguments are the path of a file with API keys, and the number of requests at work. A line on
standard input is answered by a line of JSON with the engine's counters; the end of the input ends
nothing.
"""

from __future__ import annotations

import json
import sys
import threading

from llm_api import Engine
from llm_api.api_keys import ApiKeys
from llm_api.server import loading, serve

from ..support.serving import PlainTemplate, make_settings

CONTEXT = 4096


def main() -> int:
    key_file, parallel = sys.argv[1], int(sys.argv[2])
    engine = Engine.scripted(
        "delay=1ms;echo", context=CONTEXT, pool=CONTEXT * 3, parallel=parallel, queue=1000
    )

    def tell() -> None:
        for _ in iter(sys.stdin.readline, ""):
            print(json.dumps(engine.stats()), flush=True)

    threading.Thread(target=tell, daemon=True).start()
    settings = make_settings(api_keys=ApiKeys(path=key_file))
    return serve(settings, lambda _: loading.Model(engine, PlainTemplate()))  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
