"""The load client of the serving benches, against a scripted server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from llm_api.limits import Limits
from serving.dialects import Ask, LlamaServer, Stream
from serving.figures import Row, all_begun, decode_speed, longest_gap, speed
from serving.load import Seen
from serving.replies import BrokenReplyError, read_body
from serving.report import table
from serving.scenes import SCENES
from serving.servers import Load, LoadError, ask_all, ours

from .support.scripted import Job, ScriptedEngine, echo
from .support.serving import PlainTemplate, Served, make_settings


class Target:
    """What `ask_all` needs of a server."""

    def __init__(self, served: Served) -> None:
        self.port = served.port
        self.kind = ours("off")

    def ask(self, *asks: tuple[Ask, float | None], deadline: float = 10, cut: bool = False) -> Load:
        return ask_all([(self, *ask) for ask in asks], deadline, may_cut=cut)


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine(echo)


@pytest.fixture
def target(engine: ScriptedEngine) -> Iterator[Target]:
    served = Served(engine, make_settings(), PlainTemplate(), Limits())
    yield Target(served)
    served.close()


def test_replies_come_with_their_texts_tokens_and_times(target: Target):
    load = target.ask(*((Ask(f"{n} a b c d é", 6), None) for n in range(20)))
    assert [stream.text for stream in load.streams] == [f"{n} a b c d é" for n in range(20)]
    assert all(0 <= s.sent <= s.first <= s.last for s in load.streams)
    assert 0 <= load.client_share <= 1.5


def test_another_number_of_tokens_is_no_result(target: Target):
    with pytest.raises(LoadError, match="made 2 of 3 tokens"):
        target.ask((Ask("a b", 3), None))


def test_a_reply_that_breaks_is_no_result(target: Target, engine: ScriptedEngine):
    engine.script = lambda job: job.fail("begun")
    with pytest.raises(BrokenReplyError, match="not whole"):
        target.ask((Ask("a", 1), None))


def test_a_refusal_is_no_result(target: Target):
    with pytest.raises(BrokenReplyError, match="status 400: the field prompt is empty"):
        target.ask((Ask("", 1), None))


def test_a_later_request_waits_until_the_others_have_begun(target: Target, engine: ScriptedEngine):
    waiting: list[Job] = []

    def script(job: Job) -> None:
        if job.text == "later":
            waiting.pop().end("stop", None, "over")
            job.end("stop", None, "came")
        else:
            waiting.append(job)
            job.say("begun ")

    engine.script = script
    first, later = target.ask((Ask("first", 2), None), (Ask("later", 1), 0.05)).streams
    assert first.text == "begun over"
    assert first.first + 0.05 <= later.sent <= first.last


def test_what_runs_at_the_deadline_is_cut_off(target: Target, engine: ScriptedEngine):
    engine.script = lambda job: job.say("begun ")
    (stream,) = target.ask((Ask("a", 9), None), deadline=0.5, cut=True).streams
    assert (stream.text, stream.tokens) == ("begun ", 1)


def test_the_events_of_the_peer_are_read_across_chunks():
    def chunk(data: str) -> str:
        return f"{len(data.encode()):x}\r\n{data}\r\n"

    events = [
        f"data: {json.dumps(event)}\n\n"
        for event in (
            {"content": "On", "tokens_predicted": 1},
            {"content": "ce", "tokens_predicted": 2},
            {"content": "", "stop": True, "tokens_predicted": 3},
        )
    ]
    text = "".join(events)
    head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    reads = [(0.1, head), (0.2, chunk(text[:30])), (0.3, chunk(text[30:])), (0.4, "0\r\n\r\n")]
    stream = LlamaServer().stream(0, Seen(0.05, reads), cut=False)
    assert (stream.text, stream.tokens, stream.sent) == ("Once", 3, 0.05)


def test_a_reply_is_whole_only_with_its_last_chunk():
    head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    whole = Seen(0.0, [(0.1, head + "2\r\nab\r\n0\r"), (0.2, "\n\r\n")])
    assert read_body(whole).pieces == [(0.1, b"ab")]
    with pytest.raises(BrokenReplyError, match="not whole"):
        read_body(Seen(0.0, whole.reads[:1]))


def test_figures():
    def stream(*times: float) -> Stream:
        return Stream(0.0, [(when, "x") for when in times], len(times))

    load = Load([stream(1, 2, 3, 4), stream(2, 3, 7, 8)], 0.0)
    assert speed(load) == 1.0  # 8 tokens in 8 s
    assert decode_speed(load) == 1.5  # 2 + 1 tokens in the 2 s from 2 to 4
    assert all_begun(load) == 2
    assert longest_gap(load.streams) == 4
    assert longest_gap(load.streams[:1], since=4) == 0


def test_the_table_says_whether_goals_are_reached():
    def row(ratio: float, goal: float | None, at_least: bool) -> Row:
        return Row("scene", "s", [ratio, 9, 0], [1, 1, 1], goal, False, at_least)

    lines = table([row(1.5, 1.5, True), row(1.5, 1.4, False), row(1.5, None, True)]).splitlines()[
        2:
    ]
    assert [line.split(" | ")[-3:] for line in lines] == [
        ["**1.500**", "≥ 1.5", "reached |"],
        ["**1.500**", "≤ 1.4", "not reached |"],
        ["**1.500**", "", " |"],
    ]


def test_every_scene_has_a_name_of_its_own():
    names = [scene.name for scene in SCENES]
    assert len(set(names)) == len(names) > 15
