"""python -m tests.soak [-h] [--seconds N] [--seed N] [--clients N]

Mixed traffic at a server for a while; prints what became of it, and exits with 1 if anything did
that should not: a good request that failed or got another's text, memory that grows after the first
minute, descriptors or slots that stay taken. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

from .process import Process, start
from .traffic import Client, Tally

_PARALLEL = 8
_RELOAD_SECONDS = 1.0
_WARM_UP_SECONDS = 60.0
_GROWTH = 0.05
_FAULT_EVERY = 10_000
"""Decodes between two faults. The first one and each third after it is a panic, which costs the
context; the very first also makes the process read its own symbols, 30 MB of them."""


def main() -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clients", type=int, default=16)
    wanted = parser.parse_args()
    faults = ",".join(
        f"{'panic' if index % 3 == 1 else 'decode'}:{index * _FAULT_EVERY}"
        for index in range(1, 1 + int(wanted.seconds))
    )
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder, start(Path(folder), _PARALLEL, faults) as server:
        problems = _soak(server, tally, wanted.seconds, wanted.seed, wanted.clients)
    problems += tally.failures
    for problem in problems[:20]:
        print(f"PROBLEM: {problem}")
    print(f"{len(problems)} problems")
    return int(bool(problems))


def _soak(server: Process, tally: Tally, seconds: float, seed: int, clients: int) -> list[str]:
    problems = []
    descriptors = server.descriptors()
    begun = time.monotonic()
    end, warm = begun + seconds, begun + min(_WARM_UP_SECONDS, seconds / 2)
    threads = [
        threading.Thread(target=Client(server.port, f"{seed}.{index}", tally).run, args=(end,))
        for index in range(clients)
    ]
    for thread in threads:
        thread.start()
    reloads, memory_then = 0, 0
    while (now := time.monotonic()) < end:
        if not memory_then and now >= warm:
            memory_then = server.memory()
        if server.reload():
            reloads += 1
        else:
            problems.append("SIGHUP was not heeded")
        time.sleep(min(_RELOAD_SECONDS, max(0.0, end - time.monotonic())))
    for thread in threads:
        thread.join()
    is_at_rest = server.wait_for_rest(descriptors)
    memory_now, descriptors_now, stats = server.memory(), server.descriptors(), server.stats()
    status = server.terminate()
    growth = memory_now / memory_then - 1
    at_work = {name: stats[name] for name in ("running", "waiting", "paused")}
    print(f"{seconds:g} s, seed {seed}, {clients} clients")
    print(f"good requests answered   {tally.good.total()}: {dict(sorted(tally.good.items()))}")
    print(f"visibly broken by faults {tally.broken}, of {stats['failed']} that the engine ended")
    print(f"done wrong on purpose    {dict(sorted(tally.provoked.items()))}")
    print(f"reloads {reloads}, contexts rebuilt {stats['rebuilds']}, pauses {stats['pauses']}")
    print(
        f"memory {memory_then >> 10} KiB after {warm - begun:g} s,"
        f" {memory_now >> 10} KiB at the end: {growth:+.1%}"
    )
    print(f"descriptors {descriptors} at the start, {descriptors_now} at the end")
    print(f"at work at the end {at_work}, exit status {status}")
    if not is_at_rest:
        problems.append("requests or descriptors are left")
    if growth > _GROWTH and seconds > _WARM_UP_SECONDS:
        problems.append(f"memory grew by {growth:.1%}")
    if tally.broken > stats["failed"]:
        problems.append("more replies broke than the faults account for")
    if status:
        problems.append(f"exit status {status}")
    if not tally.good.total():
        problems.append("no request was answered")
    return problems + server.problems


if __name__ == "__main__":
    sys.exit(main())
