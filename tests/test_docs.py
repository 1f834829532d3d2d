"""The tools that write the generated parts of the documentation."""

import importlib.util
from pathlib import Path

import pytest

from llm_api.options import FIELDS, OPTIONS

ROOT = Path(__file__).parents[1]


@pytest.fixture
def docs(tmp_path, monkeypatch):
    """The tool, with a README of its own."""
    spec = importlib.util.spec_from_file_location("docs", ROOT / "tools" / "docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "README", tmp_path / "README.md")
    module.README.write_text(
        "a\n<!-- flags:begin -->\nold\n<!-- flags:end -->\nb\n"
        "<!-- fields:begin -->\n<!-- fields:end -->\nc\n"
    )
    return module


def test_writes_every_option_and_then_agrees(docs, capsys):
    assert docs.main(["--check"]) == 1
    out = capsys.readouterr().out
    assert "-old\n" in out
    assert docs.main([]) == 0
    assert docs.main(["--check"]) == 0
    text = docs.README.read_text()
    assert "\nold\n" not in text
    assert text.startswith("a\n<!-- flags:begin -->\n| flag |")
    assert text.endswith("|\n<!-- fields:end -->\nc\n")
    for option in OPTIONS:
        assert text.count(f"| `-{option.name}` | {option.type_name} | ") == 1
    for field in FIELDS:
        assert text.count(f"| `{field}` | ") == 1
    assert "number of cores" in text


def test_a_stale_table_is_told(docs):
    docs.main([])
    text = docs.README.read_text()
    docs.README.write_text(text.replace("| `0.8` |", "| `0.9` |"))
    assert docs.main(["--check"]) == 1


def test_missing_markers(docs):
    docs.README.write_text("nothing")
    with pytest.raises(SystemExit, match="'flags'"):
        docs.main([])
