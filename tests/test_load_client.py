"""The load client of the serving benches, against a scripted server."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from llm_api.limits import Limits
from serving import __main__ as run
from serving import kept
from serving.bench import Bench, Scene, in_turns
from serving.dialects import Ask, LlamaServer, Stream
from serving.figures import Row, all_begun, decode_speed, longest_gap, speed
from serving.kept import Kept
from serving.load import Seen
from serving.machine import OTHERS
from serving.replies import BrokenReplyError, read_body
from serving.report import figure, results, table
from serving.scenes import SCENES, copying, crowded
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
    assert (stream.text, stream.tokens, stream.is_whole) == ("begun ", 1, False)


def test_what_ends_before_the_deadline_has_the_count_of_the_server(
    target: Target, engine: ScriptedEngine
):
    engine.script = lambda job: (job.say("begun ", "on "), job.end("stop", None, "over"))
    (stream,) = target.ask((Ask("a b", 3), None), deadline=10, cut=True).streams
    assert (stream.text, stream.tokens, stream.is_whole) == ("begun on over", 3, True)
    assert stream.prompt_tokens == 2


def test_the_events_of_the_peer_are_read_across_chunks():
    def chunk(data: str) -> str:
        return f"{len(data.encode()):x}\r\n{data}\r\n"

    events = [
        f"data: {json.dumps(event)}\n\n"
        for event in (
            {"content": "On", "tokens_predicted": 1},
            {"content": "ce", "tokens_predicted": 2},
            {"content": "", "stop": True, "tokens_predicted": 3, "tokens_evaluated": 9},
        )
    ]
    text = "".join(events)
    head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    reads = [(0.1, head), (0.2, chunk(text[:30])), (0.3, chunk(text[30:])), (0.4, "0\r\n\r\n")]
    stream = LlamaServer().stream(0, Seen(0.05, reads), cut=False)
    assert (stream.text, stream.tokens, stream.sent) == ("Once", 3, 0.05)
    assert (stream.is_whole, stream.prompt_tokens) == (True, 9)
    cut = LlamaServer().stream(0, Seen(0.05, reads[:2]), cut=True)
    assert (cut.tokens, cut.is_whole) == (0, False)


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
    assert all_begun(load) == 2
    assert longest_gap(load.streams) == 4
    assert longest_gap(load.streams[:1], since=4) == 0


def test_the_speed_of_decoding_is_that_of_steps_of_all_streams():
    def stream(*times: float) -> Stream:
        return Stream(0.0, [(when, "x") for when in times], len(times))

    # Steps of 1 s, after each of which one text comes 0.1 s after the other; the first stream
    # begins and ends a step before the second.
    early, late = stream(1, 2, 3, 4), stream(2.1, 3.1, 4.1, 5.1)
    assert decode_speed(Load([early, late], 0.0)) == pytest.approx(2)
    # Two tokens a piece.
    twice = Stream(0.0, late.pieces, 8)
    assert decode_speed(Load([early, twice], 0.0)) == pytest.approx(3)
    with pytest.raises(LoadError, match="two steps"):
        decode_speed(Load([early, stream(3.1, 4.1, 5.1)], 0.0))


def row(ratios: list[float], goal: float | None, at_least: bool = True) -> Row:
    return Row("scene", "s", ratios, [1.0] * len(ratios), goal, False, at_least)


def test_the_table_says_whether_goals_are_reached():
    rows = [
        row([1.5, 1.6, 1.4], 1.45),
        row([1.5, 1.6, 1.4], 1.46),
        row([1.5, 1.6, 1.4], 1.54),
        row([1.5, 1.6, 1.4], 1.56),
        row([1.5, 1.6, 1.4], 1.4, at_least=False),
        row([1.5, 1.6, 1.4], 1.55, at_least=False),
        row([1.5], 1.5),
        row([2, 4], None),
    ]
    assert [line.split(" | ")[-3:] for line in table(rows).splitlines()[2:]] == [
        ["**1.500** (1.450 to 1.550)", "≥ 1.45", "reached |"],
        ["**1.500** (1.450 to 1.550)", "≥ 1.46", "undecided |"],
        ["**1.500** (1.450 to 1.550)", "≥ 1.54", "undecided |"],
        ["**1.500** (1.450 to 1.550)", "≥ 1.56", "not reached |"],
        ["**1.500** (1.450 to 1.550)", "≤ 1.4", "not reached |"],
        ["**1.500** (1.450 to 1.550)", "≤ 1.55", "reached |"],
        ["**1.500** (1.500 to 1.500)", "≥ 1.5", "reached |"],
        ["**3.00** (2.50 to 3.50)", "", " |"],
    ]


def test_a_figure_is_the_median_of_the_rounds():
    assert figure([1.0, 2.0, 3.0, 10.0]) == "2.5"
    assert figure([1000.0, 3000.0]) == "2,000"


def test_what_was_kept_is_reported_with_notes_and_failures(tmp_path: Path):
    facts = dict.fromkeys(("machine", "system", "llm-api", "llama-server", "date", OTHERS), "x")
    seen = row([1.5], 1.5)
    seen.notes = {"first text, ms": [10.0, 30.0, 20.0], "longest gap, ms": [1.0]}
    seen.base_notes = {"first text, ms": [40.0]}
    seen.remark = "nothing was drafted"
    kept.write(tmp_path, Kept("one", facts, 60.0, [seen]))
    kept.write(tmp_path, Kept("two", facts, 60.0, [], "LoadError: it broke"))
    told = [kept.read(tmp_path, name) for name in ("one", "two")]
    assert told == [
        Kept("one", facts, 60.0, [seen]),
        Kept("two", facts, 60.0, [], "LoadError: it broke"),
    ]
    assert kept.read(tmp_path, "three") is None
    page = results([some for some in told if some is not None])
    assert "- two: LoadError: it broke\n" in page
    assert "- scene: first text, ms: 20 (llama-server: 40); longest gap, ms: 1; nothing" in page
    assert "all scenes together: 2 minutes" in page


def test_a_failing_scene_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def fail(bench: Bench) -> list[Row]:
        raise LoadError("it broke")

    ran = [Scene("broken", fail), Scene("whole", lambda bench: [row([1.5], 1.0)])]
    monkeypatch.setattr(run, "SCENES", ran)
    monkeypatch.setattr(kept, "FOLDER", tmp_path)
    monkeypatch.setattr(run, "find_or_build", lambda: None)
    monkeypatch.setattr(run.machine, "describe", lambda peer: {})
    monkeypatch.setattr(sys, "argv", ["serving"])
    assert run.main() == 1
    broken, whole = (kept.read(tmp_path, scene.name) for scene in ran)
    assert broken is not None
    assert broken.failed == "LoadError: it broke"
    assert whole is not None
    assert whole.rows[0].verdict == "reached"
    assert "failed: broken" in capsys.readouterr().err


def test_each_round_begins_with_another_contender():
    order: list[str] = []

    def contender(name: str, turn: int) -> int:
        order.append(name)
        return turn

    names = ("a", "b", "c")
    results = in_turns({name: partial(contender, name) for name in names}, 4)
    assert "".join(order) == "abcbcacababc"
    assert results == {name: [0, 1, 2, 3] for name in names}


def test_the_peer_samples_with_the_filters_that_are_on():
    def asked(greedy: bool) -> dict[str, object]:
        request = LlamaServer().request(Ask("a", 1, greedy=greedy))
        return json.loads(request.partition("\r\n\r\n")[2])

    assert asked(greedy=False)["samplers"] == ["penalties", "top_k", "top_p", "temperature"]
    greedy = asked(greedy=True)
    assert (greedy["samplers"], greedy["top_k"]) == (["penalties", "top_k"], 1)


def test_a_copy_with_another_text_is_no_result():
    with pytest.raises(LoadError, match="another text with prompt lookup: 'b', without it 'a'"):
        copying.check_same(Stream(0, [(1, "a")], 1), Stream(0, [(1, "b")], 1))


def test_a_letter_that_becomes_another_one_is_no_copy():
    copying.check_copy(Stream(0, [(1, "your order"), (2, " of 3 May. ")], 6))
    with pytest.raises(LoadError, match="not the letter, but 'your order of 4 May'"):
        copying.check_copy(Stream(0, [(1, "your order"), (2, " of 4 May")], 6))


def test_speed_of_streams_that_may_be_cut_off():
    """Whole: the server's count until the last text; cut off: until then."""
    whole = Stream(0.5, [(1.0, "a b"), (2.5, "c")], 128)
    cut = Stream(2.0, [(3.0, "a")], 1, is_whole=False)
    assert crowded.speed_until_cut(Load([whole, cut], 0.0)) == 128 / 2 + 1 / 2


def test_every_scene_has_a_name_of_its_own():
    names = [scene.name for scene in SCENES]
    assert len(set(names)) == len(names) > 15
