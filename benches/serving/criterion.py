"""Figures of the criterion benches."""

import json
import os
import subprocess
from pathlib import Path

_BENCHES = Path(__file__).parents[1]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", _BENCHES.parent / "target"))
"""What cargo builds and criterion leaves."""


def medians(bench: str, name: str) -> dict[str, float]:
    """Run the benches of one file whose names contain `name`; return nanoseconds by full name."""
    subprocess.run(
        [
            *("cargo", "bench", "-q", "--manifest-path", str(_BENCHES / "Cargo.toml")),
            *("--target-dir", str(TARGET), "--bench", bench, "--"),
            *(name, "--noplot", "--nresamples", "1000"),
            *("--warm-up-time", "1", "--measurement-time", "2"),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    found = {}
    for told in (TARGET / "criterion").rglob("new/benchmark.json"):
        full_name = json.loads(told.read_text())["full_id"]
        if name in full_name:
            estimates = json.loads((told.parent / "estimates.json").read_text())
            found[full_name] = float(estimates["median"]["point_estimate"])
    return found
