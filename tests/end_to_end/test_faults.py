"""What fails in the middle of a reply, and who leaves in the middle of one."""

from __future__ import annotations

import http.client
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llm_api import Engine, GenerationError
from llm_api.limits import Limits

from ..support.raw import Raw
from ..support.serving import PlainTemplate, Served, make_settings
from .program import MODEL, PAGES, SECONDS, Program, run, serve

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

STORY = PAGES | {"tokens": 40}


def break_curl(option: str, exit_status: int) -> Callable[[Program], tuple[str, str]]:
    def read(program: Program) -> tuple[str, str]:
        done = program.curl("-N", "-i", option, program.url("/predict", STORY))
        assert done.status == exit_status, done
        head, _, text = done.text.partition("\r\n\r\n")
        assert " 200 " in head.splitlines()[0]
        found = re.search(r"(?i)x-request-id: (\S+)", head)
        assert found
        return found[1], text

    return read


def break_http_client(program: Program) -> tuple[str, str]:
    with program.begin("/predict", **STORY) as reply:
        with pytest.raises(http.client.IncompleteRead) as caught:
            reply.response.read()
        return reply.id, caught.value.partial.decode()


@pytest.mark.parametrize("fault", ["decode", "panic"])
@pytest.mark.parametrize(
    "read_broken",
    [break_curl("--http1.1", 18), break_curl("--http1.0", 56), break_http_client],
    ids=["curl-1.1", "curl-1.0", "http.client"],
)
def test_fault_in_the_middle_of_a_reply(
    model_path: Path, fault: str, read_broken: Callable[[Program], tuple[str, str]]
) -> None:
    """Every client notices, nothing is said about the error, and the next request is served."""
    # Without drafts a decode is a token.
    with serve("-prompt-lookup=false", LLM_API_FAULT=f"{fault}:20") as program:
        request_id, text = read_broken(program)
        record = program.record(request_id)
        assert (record["finishReason"], record["status"]) == ("error", 200)
        assert record["completionTokens"] == 19
        whole = program.ask("/predict", **STORY)
        assert whole.record["finishReason"] == "length"
        assert whole.text.startswith(text)
        assert 0 < len(text) < len(whole.text)


def test_fault_before_the_first_byte() -> None:
    with serve(LLM_API_FAULT="decode:1") as program:
        reply = program.ask("/predict", **STORY)
        assert (reply.status, reply.text) == (500, "inference failed\n")
        assert reply.record["finishReason"] == "error"
        assert program.ask("/predict", **STORY).status == 200


def test_fault_while_loading() -> None:
    done = run("-addr", "localhost:0", MODEL, LLM_API_FAULT="context:1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("FATAL ERROR: the model cannot be loaded: ")


def test_faults_until_it_is_given_up() -> None:
    """The panic, and three contexts that cannot be made: /health says so, and nothing hangs."""
    with serve(LLM_API_FAULT="panic:5,context:2,context:3,context:4") as program:
        curl = program.curl("-N", program.url("/predict", STORY))
        assert curl.status == 18
        while (health := program.curl("/health").text) == '{"status": "rebuilding"}':
            pass
        assert health == '{"status": "failed"}'
        reply = program.ask("/predict", **STORY)
        assert (reply.status, reply.text) == (
            503,
            "the engine has failed; the server must be started again\n",
        )


@pytest.mark.parametrize("fault", ["decode", "panic"])
def test_fault_in_the_library(
    model_path: Path, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_API_FAULT", f"{fault}:10")
    with Engine(model_path, context=256) as engine:
        generation = engine.generate(PAGES["prompt"], tokens=20, temperature=0)
        texts: list[str] = []
        with pytest.raises(GenerationError):
            texts.extend(generation)
        assert generation.usage is not None
        assert generation.usage.completion_tokens == 9
        again = engine.generate(PAGES["prompt"], tokens=20, temperature=0).text()
        assert again.startswith("".join(texts))
        stats = engine.stats()
        assert (stats["rebuilds"], stats["failed"]) == (int(fault == "panic"), 1)
        assert stats["cells_used"] == 0


def test_client_that_leaves_is_in_the_record(program: Program) -> None:
    """Within 250 ms, in the best of three: the machine may have other work."""

    def seconds_until_cancelled() -> float:
        with program.begin("/predict", **(STORY | {"tokens": 0, "nKeep": 1})) as reply:
            reply.read_some()
        left = time.monotonic()
        while (record := reply.record)["state"] == "running":
            assert time.monotonic() - left < SECONDS
            time.sleep(0.01)  # leaves the cores to the server
        assert record["finishReason"] == "cancelled"
        return time.monotonic() - left

    assert min(seconds_until_cancelled() for _ in range(3)) < 0.25


@pytest.fixture
def served(model_path: Path) -> Iterator[Served]:
    """A server in this process, whose engine can be looked into."""
    with Engine(model_path, context=2048, parallel=1) as engine:
        served = Served(engine, make_settings(), PlainTemplate(), Limits())
        yield served
        served.close()


def wait_for(engine: Engine, **wanted: int) -> float:
    """Wait for a state of the engine; returns how many seconds it took."""
    start = time.monotonic()
    while not wanted.items() <= engine.stats().items():
        assert time.monotonic() - start < SECONDS, (wanted, engine.stats())
        time.sleep(0.001)
    return time.monotonic() - start


def test_client_that_leaves_is_in_the_counters(served: Served) -> None:
    engine: Engine = served.engine
    seconds = []
    for count in (1, 2, 3):
        with Raw(served.port) as client:
            client.request("/predict", STORY | {"tokens": 0})
            client.read_until(b"\r\n\r\n")
        seconds.append(wait_for(engine, cancelled=count, running=0, cells_used=0))
    assert min(seconds) < 0.25


def test_client_that_leaves_in_the_queue_and_in_its_prompt(served: Served) -> None:
    engine: Engine = served.engine
    with Raw(served.port) as computing, Raw(served.port) as waiting:
        computing.request("/predict", STORY | {"prompt": " a" * 2000})
        wait_for(engine, running=1)
        waiting.request("/predict", STORY)
        wait_for(engine, running=1, waiting=1)
        waiting.close()
        wait_for(engine, running=1, waiting=0, cancelled=1)
        computing.close()
        wait_for(engine, running=0, cancelled=2, cells_used=0)
    assert engine.stats()["computed_tokens"] < 2000, "the rest of the prompt was not computed"
    assert engine.stats()["sampled_tokens"] == 0
