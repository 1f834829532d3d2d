"""What /metrics says, against what was done."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llm_api import Engine
from llm_api.api_keys import ApiKeys
from llm_api.limits import Limits
from llm_api.server.metrics import DESCRIPTIONS

from ..support.raw import Raw
from ..support.scripted import SECONDS, ScriptedEngine
from ..support.serving import Served, make_settings
from .conftest import Serve, Start
from .test_lifecycle import process

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"

Samples = dict[str, float]
"""Values by name and labels, as they stand in the text."""


def scrape(port: int) -> Samples:
    with Raw(port) as client:
        client.request("/metrics")
        response = client.response()
    assert response.status == 200
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples: Samples = {}
    for family in text_string_to_metric_families(response.text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


def ask(served: Served, **fields: object) -> tuple[int, bool]:
    with Raw(served.port) as client:
        client.request("/predict", fields)
        reply = client.response()
        return reply.status, reply.is_whole


def wait_for(engine: Engine, **wanted: int) -> None:
    deadline = time.monotonic() + SECONDS
    while not wanted.items() <= engine.stats().items():
        assert time.monotonic() < deadline, (wanted, engine.stats())
        time.sleep(0.001)


def test_every_metric_is_there_and_documented(start: Start) -> None:
    _, served = start("echo")
    ask(served, prompt="x")
    served.settle()
    with Raw(served.port) as client:
        client.request("/metrics")
        text = client.response().text
    told = {
        match[1]: match[2] for match in re.finditer(r"^# TYPE (\S+) (\w+)$", text, re.MULTILINE)
    }
    documented = dict(
        re.findall(r"^\| `([a-z_:]+)` \| (\w+) \|", OPERATIONS.read_text(), re.MULTILINE)
    )
    assert told == {metric.name: metric.kind for metric in DESCRIPTIONS}
    assert told == documented
    assert "_created" not in text


def test_what_the_engine_did(start: Start) -> None:
    _, served = start("delay=2ms;hash", context=64, parallel=2)
    before = scrape(served.port)
    assert before["llm_api_ready"] == 1
    assert before["llamacpp:prompt_tokens_total"] == 0
    prompts = ["x", "y" * 20, "z" * 30]
    for prompt in prompts:
        assert ask(served, prompt=prompt, tokens=5) == (200, True)
    served.settle()
    now = scrape(served.port)
    tokens = sum(len(served.engine.tokenize(prompt)) for prompt in prompts)
    wanted = {
        "llamacpp:prompt_tokens_total": tokens,
        "llamacpp:tokens_predicted_total": 15,
        "llamacpp:n_decode_total": 15,
        "llamacpp:n_busy_slots_per_decode": 1,
        "llamacpp:n_tokens_max": len(served.engine.tokenize("z" * 30)) + 5,
        "llamacpp:requests_processing": 0,
        "llamacpp:requests_deferred": 0,
        "llm_api_time_to_first_token_seconds_count": 3,
        "llm_api_time_to_first_token_seconds_bucket{le=+Inf}": 3,
        "llm_api_time_between_tokens_seconds_count": 12,
        "llm_api_time_between_tokens_seconds_bucket{le=0.001}": 0,
        "llm_api_request_duration_seconds_count{endpoint=/predict}": 3,
        "llm_api_requests_total{endpoint=/predict,finish_reason=length}": 3,
        "llm_api_requests_total{endpoint=/metrics,finish_reason=none}": 1,
        "llm_api_pool_cells": 128,
        "llm_api_pool_cells_used": 0,
        "llm_api_cancels_total": 0,
    }
    assert {name: now[name] for name in wanted} == wanted
    seconds = now["llamacpp:prompt_seconds_total"] + now["llamacpp:tokens_predicted_seconds_total"]
    assert seconds >= 15 * 0.002
    again = len(served.engine.tokenize("z" * 30))
    assert ask(served, prompt="z" * 30, tokens=1) == (200, True)
    now = scrape(served.port)
    assert now["llm_api_prefix_hits_total"] == 1
    cached = now["llamacpp:prompt_tokens_cached_total"]
    assert 0 < cached < again
    tokens += again - cached
    assert now["llamacpp:prompt_tokens_total"] == tokens
    assert now["llm_api_pool_cells_cached"] > 0
    speed = tokens / now["llamacpp:prompt_seconds_total"]
    assert now["llamacpp:prompt_tokens_seconds"] == pytest.approx(speed)


def test_who_runs_and_who_waits(start: Start) -> None:
    engine, served = start("delay=5ms;hash", context=100_000, pool=100_000, parallel=1)
    with Raw(served.port) as running, Raw(served.port) as waiting, Raw(served.port) as waiting_too:
        running.request("/predict", {"prompt": "x"})
        running.read_until(b"\r\n\r\n")
        for client in (waiting, waiting_too):
            client.request("/predict", {"prompt": "x"})
        wait_for(engine, running=1, waiting=2)
        now = scrape(served.port)
        assert now["llamacpp:requests_processing"] == 1
        assert now["llamacpp:requests_deferred"] == now["llm_api_queue_length"] == 2
        assert now["llm_api_pool_cells_used"] > 0
    wait_for(engine, cancelled=3)
    served.settle()
    now = scrape(served.port)
    assert now["llm_api_cancels_total"] == 3
    assert now["llm_api_requests_total{endpoint=/predict,finish_reason=cancelled}"] == 3


def test_failures(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_API_FAULT", "decode:1,decode:10,panic:20")
    _, served = start("hash")
    assert ask(served, prompt="x") == (500, True)
    assert ask(served, prompt="x") == (200, False)
    assert ask(served, prompt="x") == (200, False)
    assert ask(served, prompt="x", tokens=3) == (200, True)
    served.settle()
    now = scrape(served.port)
    assert now["llm_api_aborts_total{cause=inference}"] == 2
    assert now["llm_api_refusals_total{reason=inference_failed}"] == 1
    assert now["llm_api_engine_rebuilds_total"] == 1
    assert now["llm_api_requests_total{endpoint=/predict,finish_reason=error}"] == 3


def test_refusals(serve: Serve) -> None:
    engine = ScriptedEngine(capacity=1)
    served = serve(engine, limits=Limits(connections=2, body=1000))
    with Raw(served.port) as client, Raw(served.port) as running:
        running.request("/predict", {"prompt": "x"})
        engine.next_job()
        for target, fields, method in [
            ("/predict", {"prompt": "x", "tempratur": 1}, None),
            ("/predict", {"prompt": "x" * 20_000}, None),
            ("/predict", {"prompt": "x"}, "PUT"),
            ("/predict", {"prompt": "x"}, None),
            (f"/secret/{'x' * 50}", None, None),
            (f"/other/{'x' * 50}", None, None),
        ]:
            client.request(target, fields, method=method)
            client.response()
        with Raw(served.port) as third:
            assert third.response().status == 503
        client.send(b"nonsense\r\n\r\n")
        assert client.response().status == 400
        running.close()
    served.run(served.app.generations.wait_for_all)
    with Raw(served.port) as client:
        client.request("/predict", {"prompt": "x"})
        engine.next_job().fail()
        client.response()
    now = scrape(served.port)
    reasons = {
        name.split("=")[1][:-1]: value
        for name, value in now.items()
        if name.startswith("llm_api_refusals_total{")
    }
    assert reasons == {
        "bad_request": 1,
        "too_large": 1,
        "bad_method": 1,
        "queue_full": 1,
        "not_found": 2,
        "too_many_connections": 1,
        "malformed": 1,
        "inference_failed": 1,
    }
    documented = OPERATIONS.read_text()
    assert all(f"`{reason}`" in documented for reason in reasons)
    assert now["llm_api_requests_total{endpoint=/predict,finish_reason=refused}"] == 4
    assert now["llm_api_requests_total{endpoint=none,finish_reason=refused}"] == 2
    assert now["llm_api_request_duration_seconds_count{endpoint=/predict}"] == 2
    assert not any("xxx" in name for name in now)


def test_readers_that_are_too_slow_and_the_end(serve: Serve) -> None:
    engine = ScriptedEngine(lambda job: job.say("x" * 1000))
    served = serve(engine, limits=Limits(unsent=1000))
    with Raw(served.port, receive_buffer=4096) as slow, Raw(served.port) as other:
        slow.request("/predict", {"prompt": "x"})
        slow.read_until(b"x")
        (job,) = engine.running
        while not job.cancelled.is_set():
            job.say("x" * 100_000)
            served.settle()
        served.run(served.app.generations.wait_for_all)
        now = scrape(served.port)
        assert now["llm_api_aborts_total{cause=slow_reader}"] == 1
        other.request("/predict", {"prompt": "x"})
        other.read_until(b"x")

        async def cut() -> None:
            served.app.generations.cut_all()
            await served.app.generations.wait_for_all()

        served.run(cut)
        assert scrape(served.port)["llm_api_aborts_total{cause=shutdown}"] == 1


def test_before_the_model_is_there() -> None:
    with process(load="held") as server:
        assert scrape(server.port)["llm_api_ready"] == 0
        assert not any(name.startswith("llamacpp:n_decode") for name in scrape(server.port))


def test_off(serve: Serve) -> None:
    settings = make_settings()
    served = serve(settings=replace(settings, server=replace(settings.server, metrics=False)))
    with Raw(served.port) as client:
        client.request("/metrics")
        assert client.response().status == 404


def test_with_keys(serve: Serve) -> None:
    served = serve(settings=make_settings(api_keys=ApiKeys(["secret"])))
    with Raw(served.port) as client:
        client.request("/metrics")
        assert client.response().status == 401
        client.request("/metrics", headers={"X-Api-Key": "secret"})
        assert client.response().status == 200
