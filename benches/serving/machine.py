"""What a result was measured on, and with."""

import datetime
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from llm_api import _native
from serving.bench import ROOT
from serving.peer import Peer


def describe(peer: Peer) -> dict[str, str]:
    """Return machine, versions and date, ready to be printed."""
    return {
        "machine": f"{len(os.sched_getaffinity(0))} cores of {_cpu()}, {_memory_gib()} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "llm-api": f"{version('llm-api')} ({_commit()}) on llama.cpp {_native.llama_version}",
        "llama-server": peer.version(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "no repository"
