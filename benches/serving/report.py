"""From what the scenes kept to docs/performance.md and its picture."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from serving import picture
from serving.bench import ROOT
from serving.figures import Row
from serving.scenes import SCENES

_RESULTS = ROOT / ".bench"
_PAGE = ROOT / "docs" / "performance.md"
_PICTURE = ROOT / "docs" / "performance.svg"
_BEGIN = "<!-- results:begin -->"
_END = "<!-- results:end -->"


@dataclass
class Kept:
    """What one scene left."""

    facts: dict[str, str]
    rows: list[Row]


def main() -> int:
    """Write the page and the picture."""
    kept = [_read(path) for scene in SCENES if (path := _RESULTS / f"{scene.name}.json").exists()]
    if not kept:
        print("no results: run make bench", file=sys.stderr)
        return 1
    head, _, rest = _PAGE.read_text().partition(_BEGIN)
    tail = rest.partition(_END)[2]
    _PAGE.write_text(f"{head}{_BEGIN}\n{_results(kept)}\n{_END}{tail}")
    rows = [row for scene in kept for row in scene.rows]
    _PICTURE.write_text(picture.draw(rows))
    return 0


def _read(path: Path) -> Kept:
    told = json.loads(path.read_text())
    return Kept(told["facts"], [Row(**row) for row in told["rows"]])


def _results(kept: list[Kept]) -> str:
    rows = [row for scene in kept for row in scene.rows]
    return "\n\n".join(
        (
            _facts(kept),
            "With llama.cpp's kernels on both sides (`-kernels off`):",
            table([row for row in rows if not row.kernels]),
            "With kernels of our own (`-kernels auto`):",
            table([row for row in rows if row.kernels]),
        )
    )


def _facts(kept: list[Kept]) -> str:
    names = ("machine", "system", "llm-api", "llama-server", "date")
    lines = []
    for name in names:
        values = sorted({scene.facts[name] for scene in kept})
        if name == "date" and len(values) > 1:
            values = [f"{values[0]} to {values[-1]}"]
        lines.append(f"- {name}: {'; '.join(values)}")
    return "\n".join(lines)


def table(rows: list[Row]) -> str:
    """Return a Markdown table."""
    lines = [
        "| scene | ours | against | ratio | goal | |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        goal = "" if row.goal is None else f"{'≥' if row.at_least else '≤'} {row.goal:.3g}"
        reached = {True: "reached", False: "not reached", None: ""}[row.is_reached]
        against = f"{figure(row.base)} {row.unit}, {row.base_name}"
        lines.append(
            f"| {row.label} | {figure(row.ours)} {row.unit} | {against} "
            f"| **{_short(row.ratio)}** | {goal} | {reached} |"
        )
    return "\n".join(lines)


def figure(rounds: list[float]) -> str:
    """Return the median with three digits that mean something."""
    median = sorted(rounds)[len(rounds) // 2]
    return f"{median:,.0f}" if median >= 100 else f"{median:.3g}"


def _short(ratio: float) -> str:
    return f"{ratio:.3f}" if ratio < 2 else f"{ratio:.2f}"


if __name__ == "__main__":
    sys.exit(main())
