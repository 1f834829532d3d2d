"""The environment of a build."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

TOOL = Path(__file__).parent.parent / "tools" / "build_env.py"


def test_a_change_of_llama_cpp_is_a_change_of_what_cargo_watches(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spec = importlib.util.spec_from_file_location("build_env", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.delenv("BINDGEN_EXTRA_CLANG_ARGS", raising=False)
    before = tool.build_env()
    copy = shutil.copytree(tool._LLAMA, tmp_path / "llama")
    monkeypatch.setattr(tool, "_LLAMA", copy)
    assert tool.build_env() == before
    header = copy / "masked.h"
    header.write_text(header.read_text() + "// changed\n")
    after = tool.build_env()
    assert after["BINDGEN_EXTRA_CLANG_ARGS"] != before["BINDGEN_EXTRA_CLANG_ARGS"]
