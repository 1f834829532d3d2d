"""A process that keeps one core busy."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator

_SPIN = "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nwhile True: pass"


@contextlib.contextmanager
def busy_neighbour() -> Iterator[None]:
    """Compute on one core, and no other, meanwhile."""
    process = subprocess.Popen([sys.executable, "-c", _SPIN])
    try:
        yield
    finally:
        process.kill()
        process.wait()
