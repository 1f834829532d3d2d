"""The process: what it prints, how it fails to start, how it ends."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path

import pytest

from .program import GREEDY, MODEL, SECONDS, Program, run, serve

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [IWE] llm_api\.\w+: \S")


def test_configuration_is_printed_and_the_rest_is_logged(model_path: Path) -> None:
    flags = ("-context=256", "--top-k", "7", "-ignore-eos", "-prompt-template-type", "chatml")
    with serve(*flags, "-system-prompt", "Be brief.", model=str(model_path)) as program:
        assert program.curl("/health").text == '{"status": "ok"}'
        program.wait_for_log(r"llama\.cpp \S+, CPU variant \w+, devices .*CPU")
        assert program.terminate() == 0
    printed = json.loads(program.stdout)
    assert program.stdout == json.dumps(printed, indent=2) + "\n"
    wanted = {
        "model": str(model_path),
        "context": 256,
        "pool": 1024,
        "topK": 7,
        "ignoreEos": True,
        "promptTemplateType": "chatml",
        "systemPrompt": "Be brief.",
        "temperature": 0.8,
        "topP": 0.2,
    }
    assert wanted.items() <= printed.items()
    assert all(LINE.match(line) for line in program.log), program.log


def test_licence() -> None:
    done = run("-license")
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("EUPL", "llama.cpp", "ggml authors", "regex-automata", "Tornado"):
        assert text in done.stdout


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-tempratur", "1", MODEL], "flag provided but not defined: -tempratur"),
        (["-context", "many", MODEL], 'invalid value "many" for flag -context'),
        (["-top-p", "1.5", MODEL], 'invalid value "1.5" for flag -top-p'),
        (["-addr"], "flag needs an argument: -addr"),
    ],
)
def test_usage(arguments: list[str], reason: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    first, second, *rest = done.stderr.splitlines()
    assert first.startswith(reason)
    assert second == "Usage: llm-api [flags] MODEL"
    assert len(rest) > 50


def test_help() -> None:
    done = run("-help")
    assert done.returncode == 0
    assert "-tail-free-sampling-z float" in done.stdout + done.stderr


TEMPLATE = '{{define "prompt"}}{{.SystemPrompt}}{{end}}'


def damaged(model: Path, to: Path) -> dict[str, tuple[str, str]]:
    """Write files that are no models; the result is path and reason by what is wrong."""
    data = model.read_bytes()
    place = data.index(b"llama", data.index(b"general.architecture"))
    files = {
        "empty": (b"", "not a GGUF file"),
        "text": (b"Once upon a time\n" * 100, "not a GGUF file"),
        "only-the-magic": (b"GGUF", ""),
        "half-a-header": (data[:1000], ""),
        "half-the-weights": (data[: len(data) // 2], "incomplete"),
        "unknown": (data[:place] + b"lxyma" + data[place + 5 :], "unknown model architecture"),
    }
    written = {}
    for name, (content, reason) in files.items():
        path = to / f"{name}.gguf"
        path.write_bytes(content)
        written[name] = (str(path), reason)
    return written


class TestFatalErrors:
    """Each is one line after `FATAL ERROR: `, and exit status 1."""

    @staticmethod
    def fails(*arguments: str) -> str:
        done = run("-addr", "localhost:0", *arguments)
        *_, last = done.stderr.splitlines()
        assert (done.returncode, last[:13]) == (1, "FATAL ERROR: "), done
        assert "Traceback" not in done.stderr
        return last[13:]

    def test_arguments(self) -> None:
        assert self.fails() == "no arguments"
        assert self.fails(MODEL, MODEL) == "too many arguments"

    def test_options_that_exclude_each_other(self, tmp_path: Path) -> None:
        (tmp_path / "text").write_text(TEMPLATE)
        file = str(tmp_path / "text")
        templates = {
            "-prompt-template": TEMPLATE,
            "-prompt-template-file": file,
            "-prompt-template-type": "chatml",
        }
        for left_out in templates:
            given = [flag for flag in templates if flag != left_out]
            reason = self.fails(*(part for flag in given for part in (flag, templates[flag])), "m")
            assert all(flag in reason for flag in given)
        reason = self.fails("-system-prompt", "a", "-system-prompt-file", file, "m")
        assert reason == "only one of -system-prompt and -system-prompt-file can be given"

    @pytest.mark.parametrize(
        ("arguments", "reasons"),
        [
            (("-prompt-template-type", "llama-1"), ("llama-1", "llama-2", "vicuna_v1.1", "gguf")),
            (("-prompt-template-type", "llama-2"), ("llama-2", "needs a system prompt")),
            (("-prompt-template", '{{define "prompt"}}\n{{if}}{{end}}'), ("line 2", "if")),
            (("-prompt-template", "Hello"), ('"prompt"',)),
            (("-stop-regex", "a(b"), ("stop-regex", "a(b", "unclosed group")),
            (("-prompt-template-file", "/no/such/file"), ("/no/such/file", "No such file")),
            (("-system-prompt-file", "/no/such/file"), ("/no/such/file", "No such file")),
            (("-model-config-file", "/no/such/file"), ("/no/such/file", "No such file")),
            (("-addr", "localhost"), ("localhost", "host:port")),
        ],
    )
    def test_values(self, arguments: tuple[str, str], reasons: tuple[str, ...]) -> None:
        reason = self.fails(*arguments, MODEL)
        assert all(part in reason for part in reasons), reason

    @pytest.mark.parametrize(
        ("content", "key"),
        [
            ('{"topQ": 1}', "topQ"),
            ('{"context": "512"}', "context"),
            ('{"context": 512', "delimiter"),
        ],
    )
    def test_model_config_file(self, tmp_path: Path, content: str, key: str) -> None:
        path = tmp_path / "config.json"
        path.write_text(content)
        reason = self.fails("-model-config-file", str(path), MODEL)
        assert str(path) in reason
        assert key in reason

    def test_models(self, model_path: Path, tmp_path: Path) -> None:
        for path, reason in damaged(model_path, tmp_path).values():
            told = self.fails(path)
            assert path in told
            assert reason in told, told
        assert "No such file" in self.fails(str(tmp_path / "none.gguf"))
        assert "folder" in self.fails(str(tmp_path))
        assert "no-such-package" in self.fails("pkg:no-such-package")

    def test_context_that_fits_into_no_memory(self) -> None:
        assert "memory" in self.fails("-context", "20000000", "-parallel", "1", MODEL)

    def test_address_in_use(self, program: Program) -> None:
        reason = self.fails("-addr", f"localhost:{program.port}", MODEL)
        assert f":{program.port}" in reason
        assert "in use" in reason


def test_settings_reach_the_prompt(tmp_path: Path) -> None:
    """Flags win over the model config file; the log shows the prompt that comes of them."""
    template = (
        '{{define "prompt"}}<{{.SystemPrompt}}>{{range .MessagesWithoutSystemPrompt}}'
        "[{{.Role}}: {{.Text}}]{{end}}\n{{end}}"
    )
    (tmp_path / "template").write_text(template)
    (tmp_path / "system").write_text(" \n Be brief. \n")
    config = {"context": 64, "promptTemplateFile": str(tmp_path / "template"), "temperature": 0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with serve(
        *("-model-config-file", str(tmp_path / "config.json")),
        *("-system-prompt-file", str(tmp_path / "system")),
        *("-log-prompts", "-context", "96", "-tokens", "3"),
    ) as program:
        reply = program.ask("/chat", messages=["Hi", "Hello", "Bye"], replyPrefix="Well")
        assert reply.record["completionTokens"] == 3
        shown = r"<Be brief.>[user: Hi][assistant: Hello][user: Bye]\nWell"
        program.wait_for_log(re.escape(f'prompt "{shown}"'))
        reply = program.ask("/chat", messages="Hi", system="Be kind.", tokens=9)
        assert reply.record["completionTokens"] == 3, "a request cannot raise the limit"
        program.wait_for_log(re.escape(r'prompt "<Be kind.>[user: Hi]\n"'))
        assert "the context 96" in program.ask("/predict", prompt="a " * 200).text
    assert json.loads(program.stdout)["context"] == 96


def test_chat_is_not_there_without_a_template() -> None:
    with serve("-context", "64") as program:
        program.wait_for_log("/chat is not served")
        done = program.curl("-w", "%{http_code}", "-d", "messages=Hi", "/chat")
        assert done.text.endswith("404")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_end_while_a_reply_streams(number: int) -> None:
    """It ends whole; beside it a busy server says so, and one that ends, too."""
    with serve("-parallel", "1", "-queue", "0") as program:
        reply = program.begin("/predict", prompt="Once", tokens=100, **GREEDY)
        text = reply.read_some()
        busy = program.begin("/predict", prompt="Once")
        with busy:
            assert (busy.status, busy.read_some()) == (503, "server is busy\n")
            assert busy.response.headers["Retry-After"] == "1"
        program.process.send_signal(number)
        program.wait_for_log("shutting down")
        assert program.curl("/health").status == 7, "nobody listens"
        assert len(text) < len(text + reply.read().text)
        assert program.wait() == 0
        program.wait_for_log(rf"{reply.id} /predict 200 length prompt=\d+ .*completion=100 ")


def test_prompts_and_replies_are_not_logged(program: Program) -> None:
    word = "Xylophone"
    ids = [
        program.ask(path, **fields, tokens=4).id
        for path, fields in {
            "/predict": {"prompt": f"{word} {word} {word}"},
            "/chat": {"messages": word, "system": word, "replyPrefix": word},
        }.items()
    ]
    program.ask("/predict", prompt=word, tempratur=word)
    for request_id in ids:
        program.wait_for_log(f"{request_id} /")
    assert word not in "".join(program.log)


def test_curl_needs_no_options(program: Program) -> None:
    """What a first user types."""
    url = program.url("/predict", {"prompt": "The capital of France is", "tokens": 5})
    done = subprocess.run(["curl", url], capture_output=True, timeout=SECONDS, check=False)
    assert done.returncode == 0
    assert b"Paris" in done.stdout
