"""From what the scenes kept to docs/performance.md and its picture."""

import statistics
import sys

from serving import kept, picture
from serving.bench import ROOT
from serving.figures import Row
from serving.kept import Kept
from serving.machine import OTHERS
from serving.scenes import SCENES

_PAGE = ROOT / "docs" / "performance.md"
_PICTURE = ROOT / "docs" / "performance.svg"
_BEGIN = "<!-- results:begin -->"
_END = "<!-- results:end -->"


def main() -> int:
    """Write the page and the picture."""
    found = [told for scene in SCENES if (told := kept.read(kept.FOLDER, scene.name)) is not None]
    if not found:
        print("no results: run make bench", file=sys.stderr)
        return 1
    head, _, rest = _PAGE.read_text().partition(_BEGIN)
    tail = rest.partition(_END)[2]
    _PAGE.write_text(f"{head}{_BEGIN}\n{results(found)}\n{_END}{tail}")
    _PICTURE.write_text(picture.draw([row for told in found for row in told.rows]))
    return 0


def results(found: list[Kept]) -> str:
    """Return facts, tables and what was seen beside them, as Markdown."""
    rows = [row for told in found for row in told.rows]
    parts = [_facts(found)]
    if failed := [f"- {told.scene}: {told.failed}" for told in found if told.failed]:
        parts += ["**Failed**, and not in the tables:", "\n".join(failed)]
    for title, kernels in (
        ("With llama.cpp's kernels on both sides (`-kernels off`)", False),
        ("With kernels of our own (`-kernels auto`)", True),
    ):
        some = [row for row in rows if row.kernels == kernels]
        parts += [f"{title}:", table(some)]
        if seen := beside(some):
            parts += [f"{title}, seen beside it:", seen]
    return "\n\n".join(parts)


def _facts(found: list[Kept]) -> str:
    names = ("machine", "system", "llm-api", "llama-server", "date", OTHERS)
    lines = []
    for name in names:
        values = sorted({told.facts[name] for told in found})
        if name in ("date", OTHERS) and len(values) > 1:
            values = [f"{values[0]} to {values[-1]}"]
        lines.append(f"- {name}: {'; '.join(values)}")
    minutes = sum(told.seconds for told in found) / 60
    return "\n".join((*lines, f"- all scenes together: {minutes:.0f} minutes"))


def table(rows: list[Row]) -> str:
    """Return a Markdown table."""
    lines = [
        "| scene | ours | against | ratio (quartiles) | goal | |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        against = f"{_with_unit(row.base, row.unit)}, {row.base_name}"
        lines.append(
            f"| {row.label} | {_with_unit(row.ours, row.unit)} | {against} "
            f"| {ratio(row)} | {goal(row)} | {row.verdict} |"
        )
    return "\n".join(lines)


def beside(rows: list[Row]) -> str:
    """Return what rows tell beside their ratios, as a Markdown list; empty if nothing."""
    lines = []
    for row in rows:
        told = []
        for name, values in row.notes.items():
            base = row.base_notes.get(name)
            against = "" if base is None else f" ({row.base_name}: {figure(base)})"
            told.append(f"{name}: {figure(values)}{against}")
        if row.remark:
            told.append(row.remark)
        if told:
            lines.append(f"- {row.label}: {'; '.join(told)}")
    return "\n".join(lines)


def goal(row: Row) -> str:
    """Return what the ratio should be; empty without a goal."""
    return "" if row.goal is None else f"{'≥' if row.at_least else '≤'} {row.goal:.3g}"


def ratio(row: Row) -> str:
    """Return the median of the ratios with their quartiles."""
    first, third = row.quartiles
    digits = 3 if row.ratio < 2 else 2
    return f"**{row.ratio:.{digits}f}** ({first:.{digits}f} to {third:.{digits}f})"


def figure(rounds: list[float]) -> str:
    """Return the median with three digits that mean something."""
    median = statistics.median(rounds)
    return f"{median:,.0f}" if median >= 100 else f"{median:.3g}"


def _with_unit(rounds: list[float], unit: str) -> str:
    return f"{figure(rounds)} {unit}".strip()


if __name__ == "__main__":
    sys.exit(main())
