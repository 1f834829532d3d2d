"""What each scene measured, as JSON: written when it ends, read by the report."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serving.bench import ROOT
from serving.figures import Row

FOLDER = ROOT / ".bench"


@dataclass
class Kept:
    """What one scene left."""

    scene: str
    facts: dict[str, str]
    seconds: float
    rows: list[Row]
    failed: str = ""
    """Why there are no rows."""


def write(folder: Path, kept: Kept) -> None:
    """Keep it in place of what the same scene left before."""
    (folder / f"{kept.scene}.json").write_text(json.dumps(asdict(kept), indent=1))


def read(folder: Path, scene: str) -> Kept | None:
    """Return what a scene left; None if it was never run."""
    path = folder / f"{scene}.json"
    if not path.exists():
        return None
    told: dict[str, Any] = json.loads(path.read_text())
    return Kept(**told | {"rows": [Row(**row) for row in told["rows"]]})
