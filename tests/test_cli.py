"""The program from its arguments to its exit status."""

import json
import os
import signal
import subprocess
import sys

import pytest

import llm_api.engine
import llm_api.server
from llm_api import cli
from llm_api.errors import ModelLoadError
from llm_api.options import OPTIONS

TEMPLATE = '{{define "prompt"}}x{{end}}'


class FakeEngine:
    """Stands for a loaded model; the last one made is `made`."""

    chat_template = "{{ messages[0].content }}"
    bos_text = "<s>"
    eos_text = "</s>"
    made = None

    def __init__(self, model, **options):
        FakeEngine.made = self
        self.model = model
        self.options = options
        self.closed = False

    def close(self):
        self.closed = True


@pytest.fixture
def served(monkeypatch):
    """Replace engine and server; returns the list of what was served."""
    calls = []
    FakeEngine.made = None

    def serve(settings, load):
        model = load("the load")
        assert not model.engine.closed
        calls.append((settings, model.engine, model.prompt_template))
        return 0

    monkeypatch.setattr(llm_api.engine, "Engine", FakeEngine)
    monkeypatch.setattr(llm_api.server, "serve", serve)
    return calls


@pytest.fixture
def program(capsys):
    """Run `main`; returns exit status, standard output and standard error."""

    def run(*argv):
        status = cli.main(argv)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_a_model_is_loaded_and_served(served, program):
    status, out, err = program("-context", "99", "-threads=3", "-temperature", "0", "m.gguf")
    assert (status, err) == (0, "")
    [(settings, engine, template)] = served
    assert str(engine.model) == "m.gguf"
    assert template is None
    assert engine.options == {
        "context": 99,
        "pool": 396,
        "parallel": 4,
        "queue": 16,
        "threads": 3,
        "kernels": "auto",
        "cache_type_k": "f16",
        "cache_type_v": "f16",
        "flash_attn": "auto",
        "prompt_lookup": True,
        "gpu_layers": 0,
        "rope_freq_base": 0.0,
        "rope_freq_scale": 0.0,
        "loading": "the load",
    }
    assert settings.generation["temperature"] == 0.0
    effective = json.loads(out)
    assert (effective["context"], effective["pool"], effective["model"]) == (99, 396, "m.gguf")
    assert out.startswith('{\n  "model": "m.gguf",\n')


def test_the_templates_reach_the_server(served, program):
    program("-prompt-template", TEMPLATE, "m")
    program("-prompt-template-type", "gguf", "m")
    assert [template is not None for _, _, template in served] == [True, True]


@pytest.mark.parametrize("source", [None, "{% bad"])
def test_a_model_without_a_usable_chat_template(served, program, monkeypatch, source):
    monkeypatch.setattr(FakeEngine, "chat_template", source)
    status, _, err = program("-prompt-template-type", "gguf", "m")
    assert status == 1
    assert err.startswith("FATAL ERROR: the model")
    assert FakeEngine.made.closed
    assert not served


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        ([], "no arguments"),
        (["--"], "no arguments"),
        (["a", "b"], "too many arguments"),
        (["m", "-context", "9"], "too many arguments"),
        (["-prompt-template=x", "-prompt-template-type=y", "m"], "only one of -prompt-template "),
        (["-system-prompt=a", "-system-prompt-file=b", "m"], "only one of -system-prompt "),
        (["-prompt-template-type=x", "m"], 'unknown prompt template type "x"'),
        (["-prompt-template-type=llama-2", "m"], 'prompt template type "llama-2" needs a system'),
        (["-prompt-template=\n{{end}}", "m"], "prompt template, line 2: "),
        (['-prompt-template={{define "x"}}{{end}}', "m"], "prompt template: "),
        (["-stop-regex=(", "m"], "stop-regex: "),
        (["-model-config-file=/none", "m"], 'model config file "/none": cannot be read: '),
        (["-prompt-template-file=/none", "m"], 'prompt template file "/none": cannot be read: '),
        (["-system-prompt-file=/none", "m"], 'system prompt file "/none": cannot be read: '),
        (["-addr=nowhere", "m"], 'addr "nowhere": must be host:port'),
        (["-pool=1", "m"], "pool: must be at least the context"),
        (["hf:org/model"], "hf:org/model: models from the Hugging Face Hub are not in this"),
        (["pkg:no-such-package"], 'pkg:no-such-package: no package "no-such-package" is installed'),
    ],
)
def test_fatal_errors(served, program, argv, reason):
    status, out, err = program(*argv)
    assert (status, out) == (1, "")
    assert err.startswith(f"FATAL ERROR: {reason}")
    assert not served


def test_a_model_that_cannot_be_loaded(served, program, monkeypatch):
    def load(model, **options):
        raise ModelLoadError("no such file")

    monkeypatch.setattr(llm_api.engine, "Engine", load)
    status, _, err = program("none.gguf")
    assert status == 1
    assert err.startswith("FATAL ERROR: ")


def test_an_address_that_cannot_be_bound(served, program, monkeypatch):
    def serve(settings, load):
        raise llm_api.server.ServeError("address in use")

    monkeypatch.setattr(llm_api.server, "serve", serve)
    status, _, err = program("m")
    assert (status, err) == (1, "FATAL ERROR: address in use\n")
    assert FakeEngine.made is None, "known before the long load"


def test_an_interrupt_while_the_model_loads(served, program, monkeypatch):
    def load(model, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(llm_api.engine, "Engine", load)
    status, _, err = program("m")
    assert (status, err) == (130, "")


def test_the_servers_exit_status_is_the_programs(served, program, monkeypatch):
    monkeypatch.setattr(llm_api.server, "serve", lambda *_: 3)
    assert program("m")[0] == 3


# --- usage ---


def test_every_flag_is_in_the_usage(program):
    for flag in ("-h", "-help", "--help"):
        status, out, err = program(flag)
        assert (status, out) == (0, "")
        assert err.startswith("Usage: llm-api [flags] MODEL\n")
        for option in OPTIONS:
            assert f"\n  -{option.name}" in err


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["-nope"], "flag provided but not defined: -nope"),
        (["-context"], "flag needs an argument: -context"),
        (["-context", "x"], 'invalid value "x" for flag -context: parse error'),
        (["-context=1e3"], 'invalid value "1e3" for flag -context: parse error'),
        (["-context=1"], 'invalid value "1" for flag -context: must be at least 2'),
        (["-top-p=2"], 'invalid value "2" for flag -top-p: must be at most 1'),
        (["-temperature=NaN"], 'invalid value "NaN" for flag -temperature: must be finite'),
        (["-temperature=1e999"], 'invalid value "1e999" for flag -temperature: value out of range'),
        (["-ignore-eos=maybe"], 'invalid boolean value "maybe" for -ignore-eos: parse error'),
        (["---context=3"], "bad flag syntax: ---context=3"),
    ],
)
def test_a_command_line_that_cannot_be_read(served, program, argv, reason):
    status, out, err = program(*argv)
    assert (status, out) == (2, "")
    assert err.startswith(f"{reason}\nUsage: llm-api [flags] MODEL\n  -addr string\n")
    assert not served


# --- licences ---


def test_licences(program):
    for argv in (["-license"], ["--license=true", "a", "b"]):
        status, out, err = program(*argv)
        assert (status, err) == (0, "")
        for text in ("EUPL", "ggml authors", "regex-automata", "pyo3", "Mozilla", "Tornado"):
            assert text in out
    assert program("-license=false")[0] == 1


# --- the real thing ---


def run_program(*argv):
    return subprocess.run(
        [sys.executable, "-m", "llm_api", *argv],
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ,
        check=False,
    )


def test_as_a_process(tmp_path):
    done = run_program()
    assert (done.returncode, done.stderr) == (1, "FATAL ERROR: no arguments\n")
    assert run_program("-nope").returncode == 2
    path = tmp_path / "not-a-model.gguf"
    path.write_text("not a model")
    for model in (path, tmp_path / "none.gguf"):
        done = run_program(str(model))
        assert done.returncode == 1
        assert json.loads(done.stdout)["model"] == str(model)
        last = done.stderr.splitlines()[-1]
        assert last.startswith("FATAL ERROR: ")
        assert str(model) in last


def test_what_is_imported_before_the_load():
    """What serves is imported while the model loads, and what few servers need on its first use."""
    code = "import sys, llm_api.cli, llm_api.server; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=30, check=True)
    imported = set(done.stdout.split())
    assert "llm_api._native" in imported
    serving = {"llm_api.server.app", "tornado.httpserver", "h2", "prometheus_client"}
    rarely_needed = {"jinja2", "llm_api.templates.gotemplate", "tqdm"}
    assert imported.isdisjoint(serving | rarely_needed)


def test_hang_up_before_the_server_is_there(tmp_path):
    """It waits, where it would end a program that has no handler yet."""
    keys = tmp_path / "keys"
    os.mkfifo(keys)
    command = [sys.executable, "-m", "llm_api", "-api-key-file", str(keys), "none.gguf"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        with keys.open("w") as written:  # the program is reading its settings
            process.send_signal(signal.SIGHUP)
            written.write("bad key")
        _, errors = process.communicate()
    assert "FATAL ERROR" in errors
    assert process.returncode == 1
