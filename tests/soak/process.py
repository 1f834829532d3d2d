"""The server's process, as its host sees it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KEY = "a-key-of-the-soak"
_OTHER_KEY = "another-key-that-comes-and-goes"
_ROOT = Path(__file__).parents[2]
_SECONDS = 20


class Process:
    """A running server, its memory, its descriptors and its engine's counters."""

    def __init__(self, process: subprocess.Popen[str], key_file: Path) -> None:
        self._process = process
        self._key_file = key_file
        self.problems: list[str] = []
        """Lines of the log that no traffic should bring about."""
        self._is_ready = threading.Event()
        self._has_reloaded = threading.Event()
        self.port = 0
        threading.Thread(target=self._read_log, daemon=True).start()
        assert self._is_ready.wait(_SECONDS), self.problems

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := re.search(r"listening on \S+:(\d+)$", line):
                self.port = int(found[1])
            if line.endswith("ready\n"):
                self._is_ready.set()
            if "keys have been read again" in line:
                self._has_reloaded.set()
            is_ordered = "LLM_API_FAULT" in line or "panic" in line or "rebuil" in line
            if ("Traceback" in line or " E " in line) and not is_ordered:
                self.problems.append(line.strip())

    def reload(self) -> bool:
        """Change the file of keys, and let it be read; tell whether it was."""
        has_other = _OTHER_KEY in self._key_file.read_text()
        self._key_file.write_text(KEY + ("\n" if has_other else f"\n{_OTHER_KEY}\n"))
        self._has_reloaded.clear()
        self._process.send_signal(signal.SIGHUP)
        return self._has_reloaded.wait(_SECONDS)

    def stats(self) -> dict[str, int]:
        """Ask for the engine's counters."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("stats\n")
        self._process.stdin.flush()
        counters: dict[str, int] = json.loads(self._process.stdout.readline())
        return counters

    def memory(self) -> int:
        """Resident memory, in bytes."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """Open descriptors."""
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    def wait_for_rest(self, descriptors: int) -> bool:
        """Wait until nothing is at work or open any more; tell whether that came."""
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline:
            stats = self.stats()
            at_work = stats["running"] + stats["waiting"] + stats["paused"]
            if not at_work and self.descriptors() <= descriptors:
                return True
            time.sleep(0.05)
        return False

    def terminate(self) -> int:
        """End it with SIGTERM; its exit status."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(_SECONDS)


@contextmanager
def start(folder: Path, parallel: int, faults: str) -> Iterator[Process]:
    """Run a server with faults ordered, in the words of LLM_API_FAULT."""
    key_file = folder / "keys"
    key_file.write_text(f"{KEY}\n")
    command = [sys.executable, "-m", "tests.soak.server", str(key_file), str(parallel)]
    environment = os.environ | {"LLM_API_FAULT": faults}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=_ROOT, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment
    ) as process:
        try:
            yield Process(process, key_file)
        finally:
            process.kill()
