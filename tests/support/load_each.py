"""Loads model files and lets each say something, every one in a process of its own.

``python -m tests.support.load_each FILE …`` prints a JSON object with, for each file, the exit
status (negative: the signal) and the last line that the process had to say.
"""

import json
import os
import signal
import sys
import tempfile

from llm_api import Engine, LlmApiError, _native

_SECONDS = 30


def main(paths: list[str]) -> None:
    """Load each file in a fork: importing everything again would take most of the time."""
    outcomes = {}
    for path in paths:
        with tempfile.TemporaryFile() as said:
            child = os.fork()
            if child == 0:
                os.dup2(said.fileno(), 2)
                os._exit(_load(path))
            _, status = os.waitpid(child, 0)
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
        outcomes[path] = (os.waitstatus_to_exitcode(status), lines[-1] if lines else "")
    print(json.dumps(outcomes))


def _load(path: str) -> int:
    signal.alarm(_SECONDS)
    _native.end_on_crash()
    try:
        with Engine(path, context=64, threads=1) as engine:
            "".join(engine.generate("Hello \x00\u00e9\u4e16 world", tokens=8))
    except LlmApiError as error:
        os.write(2, f"{error}\n".encode())
        return 1
    return 0


if __name__ == "__main__":
    main(sys.argv[1:])
