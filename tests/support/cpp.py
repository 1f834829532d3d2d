"""Small C++ programs around what we put into llama.cpp."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CHANGES = Path(__file__).parents[2] / "rust/engine/llama"
"""Where the headers lie that llama.cpp is compiled with."""


def run_cpp(program: str, folder: Path, flags: list[str]) -> str:
    """Compile a program that may include those headers, run it, and return what it prints.

    It has to end with 0 and nothing on its standard error.
    """
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler (c++)")
    source, binary = folder / "program.cpp", folder / "program"
    source.write_text(program)
    compiling = [compiler, "-std=c++17", "-Wall", "-Werror", *flags, "-fno-sanitize-recover"]
    subprocess.run(
        [*compiling, f"-I{CHANGES}", str(source), "-o", str(binary)], check=True, timeout=50
    )
    done = subprocess.run([binary], check=False, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout
