"""A short soak; `make soak` is the long one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.timeout(120)
def test_a_short_soak() -> None:
    command = [sys.executable, "-m", "tests.soak", "--seconds", "20", "--seed", "3"]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    print(done.stdout)
