"""Parts of the engine by themselves, without a model: stop rules and sampling."""

import os
import subprocess

from serving import criterion
from serving.bench import ROOT, Bench, LeftOutError, Scene
from serving.figures import Row

_STOP_TOKENS = 20
"""Tokens of one run of the stop bench."""
_ROUNDS = 5


def _stop_rules(bench: Bench) -> list[Row]:
    runs = [criterion.medians("stop", "10 patterns") for _ in range(bench.rounds or _ROUNDS)]
    early, late = (
        [_at(run, f"/{length}") / 1e3 / _STOP_TOKENS for run in runs] for length in (100, 30_000)
    )
    label = "stop rules, ten patterns: one token after 30,000 bytes of reply"
    return [
        Row(label, "µs", late, base, goal, kernels=False, at_least=False, base_name=base_name)
        for base, base_name, goal in (
            (early, "after 100 bytes", 1.1),
            ([2.0] * len(runs), "the bound", 1.0),
        )
    ]


def _at(run: dict[str, float], end: str) -> float:
    (found,) = (time for name, time in run.items() if name.endswith(end))
    return found


def _sampling(bench: Bench) -> list[Row]:
    """Run the example that times both chains in turns."""
    program = criterion.TARGET / "release" / "examples" / "sampler_speed"
    if not program.exists():
        raise LeftOutError(f"{program} is not built: make bench-sampler")
    libraries = ROOT / "python" / "llm_api" / "lib"
    own: dict[str, list[float]] = {}
    base: dict[str, list[float]] = {}
    for _ in range(bench.rounds or _ROUNDS):
        done = subprocess.run(
            [program],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"LD_LIBRARY_PATH": str(libraries)},
        )
        for line in done.stdout.splitlines()[2:]:
            vocabulary, theirs, ours, _ = line.strip("| ").split(" | ")
            own.setdefault(vocabulary, []).append(float(ours))
            base.setdefault(vocabulary, []).append(float(theirs))
    return [
        Row(
            f"sampling, default chain, vocabulary of {int(vocabulary):,}: one token",
            "µs",
            own[vocabulary],
            base[vocabulary],
            0.2,
            kernels=False,
            at_least=False,
            base_name="llama.cpp's chain",
        )
        for vocabulary in own
    ]


SCENES = (Scene("stop-rules", _stop_rules), Scene("sampling", _sampling))
