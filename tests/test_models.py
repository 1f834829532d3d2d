"""Names that stand for models."""

import subprocess
import sys
from pathlib import Path

import pytest

from llm_api.models import ModelNameError, resolve_model


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder of installed packages; returns a function that installs one into it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install(distribution, package, *files, listed=True):
        folder = tmp_path / package
        folder.mkdir()
        # A package that is imported, and not only found, fails its test.
        (folder / "__init__.py").write_text("raise AssertionError('imported')")
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(b"GGUF")
        info = tmp_path / f"{distribution.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0")
        names = (f"{package}/{file},," for file in files) if listed else ()
        (info / "RECORD").write_text("\n".join(names))
        return folder

    return install


def refusal(name):
    with pytest.raises(ModelNameError) as caught:
        resolve_model(name)
    return str(caught.value)


@pytest.mark.parametrize("name", ["model.gguf", "/a/b", "./pkg:x", "C:\\m.gguf"])
def test_anything_else_is_a_path(name):
    assert resolve_model(name) == Path(name)


def test_the_only_file_of_a_package(site):
    folder = site("some-model", "some_files", "data/m.gguf", "data/readme.txt")
    for name in ("some-model", "some_model", "Some-Model", "some_files", "some-files"):
        assert resolve_model(f"pkg:{name}") == folder / "data" / "m.gguf"


def test_a_file_that_only_the_folder_knows(site):
    folder = site("editable-model", "editable_model", "m.gguf", listed=False)
    assert resolve_model("pkg:editable-model") == folder / "m.gguf"


def test_one_file_of_several(site):
    folder = site("two-models", "two_models", "a.gguf", "x/b.gguf", "y/b.gguf")
    assert resolve_model("pkg:two-models/a.gguf") == folder / "a.gguf"
    assert resolve_model("pkg:two-models/x/b.gguf") == folder / "x" / "b.gguf"
    assert resolve_model("pkg:two-models/two_models/y/b.gguf") == folder / "y" / "b.gguf"
    for name in ("pkg:two-models", "pkg:two-models/b.gguf"):
        text = refusal(name)
        assert "more than one file fits" in text
        assert "b.gguf" in text
    assert "no such file in the package, which has: a.gguf" in refusal("pkg:two-models/c.gguf")
    assert "no such file" in refusal("pkg:two-models/../two_models/a.gguf")


def test_a_package_without_a_model(site):
    site("no-model", "no_model", "readme.txt")
    assert refusal("pkg:no-model") == "pkg:no-model: the package has no GGUF file"


def test_an_unknown_package_names_the_nearest(site):
    site("some-model", "some_model", "m.gguf")
    text = refusal("pkg:some-modle")
    assert text.endswith('no package "some-modle" is installed; did you mean some-model?')


@pytest.mark.parametrize("name", ["pkg:", "pkg:/x", "pkg:..", "pkg:__main__", "pkg:os.path"])
def test_odd_packages(name):
    assert "GGUF" in (text := refusal(name)) or "is installed" in text


def test_the_hub_is_not_in_this_version():
    assert "not in this version" in refusal("hf:org/model:Q4_K_M")


def test_the_path_on_standard_output(site, tmp_path):
    def run(*argv):
        command = [sys.executable, "-m", "llm_api.models", *argv]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    assert run("a.gguf").stdout == "a.gguf\n"
    assert run().returncode == 2
    done = run("hf:x")
    assert (done.returncode, done.stdout) == (1, "")
    assert "not in this version" in done.stderr
