"""The tools that write the generated parts of the documentation."""

import importlib.util
from pathlib import Path

import pytest

from llm_api.options import FIELDS, OPTIONS
from llm_api.server.metrics import DESCRIPTIONS

ROOT = Path(__file__).parents[1]
OPERATIONS = "docs/operations.md"


@pytest.fixture
def docs(tmp_path, monkeypatch):
    """The tool, with a README of its own."""
    spec = importlib.util.spec_from_file_location("docs", ROOT / "tools" / "docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(
        "a\n<!-- flags:begin -->\nold\n<!-- flags:end -->\nb\n"
        "<!-- fields:begin -->\n<!-- fields:end -->\nc\n"
    )
    (tmp_path / OPERATIONS).write_text("<!-- metrics:begin -->\n<!-- metrics:end -->\n")
    return module


def test_writes_every_option_and_then_agrees(docs, tmp_path, capsys):
    assert docs.main(["--check"]) == 1
    out = capsys.readouterr().out
    assert "-old\n" in out
    assert docs.main([]) == 0
    assert docs.main(["--check"]) == 0
    text = (tmp_path / "README.md").read_text()
    assert "\nold\n" not in text
    assert text.startswith("a\n<!-- flags:begin -->\n| flag |")
    assert text.endswith("|\n<!-- fields:end -->\nc\n")
    for option in OPTIONS:
        assert text.count(f"| `-{option.name}` | {option.type_name} | ") == 1
    for field in FIELDS:
        assert text.count(f"| `{field}` | ") == 1
    assert "number of cores" in text
    text = (tmp_path / OPERATIONS).read_text()
    for metric in DESCRIPTIONS:
        assert text.count(f"| `{metric.name}` | {metric.kind} | ") == 1


@pytest.mark.parametrize(
    ("document", "old"), [("README.md", "| `0.8` |"), (OPERATIONS, "| counter |")]
)
def test_a_stale_table_is_told(docs, tmp_path, document, old):
    docs.main([])
    path = tmp_path / document
    path.write_text(path.read_text().replace(old, "| x |"))
    assert docs.main(["--check"]) == 1


def test_missing_markers(docs, tmp_path):
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(SystemExit, match="'flags'"):
        docs.main([])
