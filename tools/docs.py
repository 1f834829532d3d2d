"""Writes the generated parts of the documents: the tables of flags, form fields and metrics.

python tools/docs.py [--check]

With --check nothing is written; the exit status is 1, with a diff, where a
document does not say what the code says.
"""

import difflib
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from llm_api.options import FIELDS, OPTIONS, Combine, Option
from llm_api.server.metrics import DESCRIPTIONS

ROOT = Path(__file__).parents[1]


def flags_table() -> str:
    """The flags in alphabetical order, as in the usage."""
    rows = (
        (f"`-{option.name}`", option.type_name, _default(option), option.help)
        for option in sorted(OPTIONS, key=lambda option: option.name)
    )
    return _table(("flag", "type", "default", "meaning"), rows)


def fields_table() -> str:
    """The generation options as a client sees them, in the order of the table."""
    rows = (
        (f"`{field}`", option.type_name, _range(option), _request_help(option))
        for field, option in FIELDS.items()
    )
    return _table(("field", "type", "range", "meaning"), rows)


def metrics_table() -> str:
    """All that /metrics tells."""
    rows = (
        (
            f"`{metric.name}`",
            metric.kind,
            ", ".join(f"`{label}`" for label in metric.labels),
            metric.help,
        )
        for metric in DESCRIPTIONS
    )
    return _table(("metric", "type", "labels", "meaning"), rows)


GENERATED: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"flags": flags_table, "fields": fields_table},
    "docs/operations.md": {"metrics": metrics_table},
}


def _default(option: Option) -> str:
    if option.documented_default:
        return option.documented_default
    if option.default in ("", ()):
        return ""
    return f"`{option.flag.default_text or str(option.default).lower().removesuffix('.0')}`"


def _range(option: Option) -> str:
    if option.minimum is None or option.maximum is None:
        return ""
    low = f"{option.minimum:g}"
    if option.above_minimum:
        return f"above {low}, at most {option.maximum:g}"
    if option.maximum >= 2**31 - 1:
        return f"{low} or more"
    return f"{low} to {option.maximum:g}"


def _request_help(option: Option) -> str:
    if option.combine is Combine.REPLACE:
        return option.help
    return f"{option.help}; {option.combine.value}"


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines).replace("|  |", "| |")


def generate(document: str, text: str) -> str:
    """Replace what lies between each pair of markers."""
    for name, table in GENERATED[document].items():
        begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        if len(pattern.findall(text)) != 1:
            sys.exit(f"{document}: needs the markers of {name!r} exactly once")
        before, after = pattern.split(text)
        text = f"{before}{begin}{table()}{end}{after}"
    return text


def main(arguments: list[str]) -> int:
    """Write or check; returns the exit status."""
    if arguments not in ([], ["--check"]):
        sys.exit("usage: python tools/docs.py [--check]")
    stale = 0
    for document in GENERATED:
        path = ROOT / document
        old = path.read_text(encoding="utf-8")
        new = generate(document, old)
        if not arguments:
            path.write_text(new, encoding="utf-8")
        elif old != new:
            stale = 1
            was, shall = old.splitlines(keepends=True), new.splitlines(keepends=True)
            sys.stdout.writelines(difflib.unified_diff(was, shall, document, "generated"))
            print(f"{document} is out of date: run `make docs`", file=sys.stderr)
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
