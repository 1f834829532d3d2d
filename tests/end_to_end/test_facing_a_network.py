"""The program with keys and limits, as its users start it."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from .program import GREEDY, MODEL, Program, run, serve

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

KEY = "sk-Secret1"


def curl(program: Program, *arguments: str) -> str:
    """Return the text of the reply and the status."""
    return program.curl("-w", "%{http_code}", *arguments).text


def with_key(program: Program, *arguments: str, key: str = KEY) -> str:
    return curl(program, "-H", f"Authorization: Bearer {key}", *arguments)


def test_keys_hosts_and_limits(model_path: Path, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"# mine\n{KEY}\n")
    flags = ("-api-key-file", str(keys), "-api-key", "sk-Secret2", "-cors-origins", "https://a.b")
    with serve(*flags, "-max-prompt-bytes", "100", "-max-per-client", "1") as program:
        ask = ("-d", "prompt=Once", "-d", "tokens=2", "/predict")
        assert "API key is needed" in curl(program, *ask)
        assert curl(program, *ask).endswith("401")
        assert with_key(program, *ask, key="sk-Wrong").endswith("401")
        assert with_key(program, *ask).endswith("200")
        assert with_key(program, *ask, key="sk-Secret2").endswith("200")
        assert curl(program, "/health").endswith("200")

        for refused in ("Host: evil.example", "Origin: https://evil.example"):
            assert with_key(program, "-H", refused, *ask).endswith("403")
        assert with_key(program, "-H", "Origin: https://a.b", *ask).endswith("200")
        assert with_key(program, "-d", f"prompt={'x' * 101}", "/predict").endswith("413")

        keys.write_text("sk-Secret3")
        program.process.send_signal(signal.SIGHUP)
        program.wait_for_log("API keys have been read again: 2")
        assert with_key(program, *ask).endswith("401")
        assert with_key(program, *ask, key="sk-Secret3").endswith("200")
        assert program.terminate() == 0
    assert json.loads(program.stdout)["apiKey"] == ["***"]
    assert "sk-" not in program.stdout + "".join(program.log)


def test_share_of_one_client(model_path: Path) -> None:
    with serve("-max-per-client", "1", "-parallel", "2") as program:
        with program.begin("/predict", prompt="Once", tokens=400, **GREEDY) as first:
            assert first.read_some()
            refused = program.ask("/predict", prompt="Once")
            assert refused.status == 429
            assert refused.response.headers["Retry-After"] == "1"
        program.wait_for_log(f"{first.id} /predict 200 cancelled")
        assert program.ask("/predict", prompt="Once", tokens=1).status == 200


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("-api-key", ""), "api-key, number 1: the key is empty"),
        (("-api-key-file", "/no/such/file"), "api-key-file /no/such/file: cannot be read"),
        (("-allowed-hosts", "http://a"), "allowed-hosts: "),
        (("-cors-origins", "*"), "cors-origins: "),
    ],
)
def test_fatal_errors(model_path: Path, flags: tuple[str, ...], reason: str) -> None:
    done = run("-addr", "localhost:0", *flags, MODEL)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"FATAL ERROR: {reason}")
