"""h2spec (github.com/summerwind/h2spec), the conformance test of HTTP/2, in strict mode."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from llm_api.tls import Certificate

from ..support.http2 import make_certificate
from ..support.scripted import ScriptedEngine, echo
from ..support.serving import Served, make_settings
from .conftest import Serve

_MODULE = "github.com/summerwind/h2spec"
_VERSION = "v2.2.1+incompatible"
_CASES = 146

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="session")
def h2spec(pytestconfig: pytest.Config) -> str:
    """The program: that of this machine, or built by Go and kept for the next run."""
    if found := shutil.which("h2spec"):
        return found
    assert pytestconfig.cache is not None
    folder = pytestconfig.cache.mkdir("h2spec")
    program = folder / "h2spec"
    if not program.exists():
        if shutil.which("go") is None:
            pytest.skip("neither h2spec nor Go is on this machine")
        needs = f"module tools\n\ngo 1.21\n\nrequire {_MODULE} {_VERSION}\n"
        (folder / "go.mod").write_text(needs)
        command = ["go", "build", "-mod=mod", "-o", str(program), f"{_MODULE}/cmd/h2spec"]
        built = subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True)
        if built.returncode:
            pytest.skip(f"Go could not build h2spec: {built.stderr.strip()[-200:]}")
    return str(program)


def run(program: str, served: Served, *options: str) -> tuple[int, str]:
    """Run all cases; return how many passed, and the report."""
    command = [
        program,
        "--strict",
        "-p",
        str(served.port),
        "-P",
        "/predict?prompt=some+words",
        "-o",
        "10",
    ]
    done = subprocess.run([*command, *options], check=False, capture_output=True, text=True)
    found = re.search(r"(\d+) tests, (\d+) passed, (\d+) skipped", done.stdout)
    assert found, done.stdout + done.stderr
    assert (int(found[1]), int(found[3])) == (_CASES, 0)
    return int(found[2]), done.stdout


def test_all_over_tls(serve: Serve, h2spec: str, tmp_path: Path) -> None:
    certificate = Certificate(*map(str, make_certificate(tmp_path)))
    served = serve(ScriptedEngine(echo), make_settings(certificate=certificate))
    passed, report = run(h2spec, served, "--tls", "--insecure")
    assert passed == _CASES, report


def test_all_but_one_in_clear_text(serve: Serve, h2spec: str) -> None:
    """What does not begin like HTTP/2 is HTTP/1 here, and gets its 400."""
    passed, report = run(h2spec, serve(ScriptedEngine(echo)))
    failures = report[report.index("Failures:") :]
    assert re.findall(r"\u00d7 (.*)", failures) == ["2: Sends invalid connection preface"], report
    assert "looked like an HTTP/1.1 header" in failures
    assert passed == _CASES - 1
