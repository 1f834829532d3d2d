"""The rows of the table as bars: how many times better than what they are held against."""

import math
from html import escape

from serving.figures import Row

_WIDTH = 1120
_LABELS = 600
_LINE = 18
_TOP = 40
_LEAST, _MOST = 0.25, 64.0
_COLOURS = {False: "#4878a8", True: "#d08030"}
_NAMES = {False: "llama.cpp's kernels on both sides", True: "kernels of our own"}


def draw(rows: list[Row]) -> str:
    """Return an SVG. What should be small is turned over, so that longer is always better."""
    rows = [row for row in rows if row.goal is not None]
    labels = list(dict.fromkeys((row.label, row.base_name) for row in rows))
    height = _TOP + len(labels) * 2 * _LINE + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        *_legend(),
        *_axis(height),
    ]
    for index, (label, base_name) in enumerate(labels):
        top = _TOP + index * 2 * _LINE
        against = "" if base_name == "llama-server" else f" (against {base_name})"
        parts.append(_text(_LABELS - 8, top + _LINE, label + against, "end"))
        for row in rows:
            if (row.label, row.base_name) == (label, base_name):
                parts += _bar(row, top + (_LINE - 3 if row.kernels else 2))
    return "\n".join((*parts, "</svg>\n"))


def _legend() -> list[str]:
    parts = []
    for column, kernels in enumerate((False, True)):
        left = _LABELS + column * 230
        parts.append(f'<rect x="{left}" y="6" width="10" height="10" fill="{_COLOURS[kernels]}"/>')
        parts.append(_text(left + 15, 15, _NAMES[kernels], "start"))
    parts.append(_text(_LABELS - 8, 15, "times better; the line across a bar is its goal", "end"))
    return parts


def _axis(height: int) -> list[str]:
    parts = []
    for power in range(-2, 7):
        x = _place(2.0**power)
        colour = "#606060" if power == 0 else "#d8d8d8"
        parts.append(f'<path d="M{x} {_TOP - 6}V{height - 14}" stroke="{colour}"/>')
        parts.append(_text(x, _TOP - 10, f"{2.0**power:g}", "middle"))
    return parts


def _bar(row: Row, top: int) -> list[str]:
    goal = row.goal or 1.0
    better, wanted = (row.ratio, goal) if row.at_least else (1 / row.ratio, 1 / goal)
    left, right = sorted((_place(1.0), _place(better)))
    mark = _place(wanted)
    colour = _COLOURS[row.kernels]
    return [
        f'<rect x="{left}" y="{top}" width="{max(1, right - left)}" height="11" fill="{colour}"/>',
        f'<path d="M{mark} {top - 1}v13" stroke="black" stroke-width="2"/>',
    ]


def _place(ratio: float) -> int:
    bounded = min(max(ratio, _LEAST), _MOST)
    share = math.log(bounded / _LEAST) / math.log(_MOST / _LEAST)
    return round(_LABELS + share * (_WIDTH - _LABELS - 20))


def _text(x: int, y: int, text: str, anchor: str) -> str:
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'
