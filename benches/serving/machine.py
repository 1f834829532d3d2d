"""What a result was measured on, and with."""

import datetime
import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

from llm_api import _native
from serving.bench import ROOT
from serving.peer import Peer

OTHERS = "cores that others kept busy before a scene"
"""The name of that fact. The load average would tell of the scene before."""
_LOOK_SECONDS = 0.5


def describe(peer: Peer) -> dict[str, str]:
    """Return machine, versions and date, ready to be printed."""
    return {
        "machine": f"{len(os.sched_getaffinity(0))} cores of {_cpu()}, {_memory_gib()} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "llm-api": f"{version('llm-api')} ({_commit()}) on llama.cpp {_native.llama_version}",
        "llama-server": peer.version(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        OTHERS: f"{_busy_cores():.2f}",
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30


def _busy_cores() -> float:
    """Return how many cores compute, while the benches do not."""
    before, began = _busy_seconds(), time.perf_counter()
    time.sleep(_LOOK_SECONDS)
    return (_busy_seconds() - before) / (time.perf_counter() - began)


def _busy_seconds() -> float:
    """Return for how long all cores together have computed since the machine started."""
    # user, nice, system, idle, waiting for disks, interrupts, soft interrupts
    ticks = [int(tick) for tick in Path("/proc/stat").read_text().split()[1:8]]
    return (sum(ticks[:3]) + sum(ticks[5:])) / os.sysconf("SC_CLK_TCK")


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "no repository"
