"""The table of options, and the one check that forms, files and the library share."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_api import options
from llm_api.options import (
    DEFAULTS,
    FIELDS,
    GENERATION,
    OPTIONS,
    Combine,
    OptionError,
    Spelling,
    check_generation,
    merge,
    parse_text,
)

ENGINE_KEYS = {
    *("temperature", "top_k", "top_p", "min_p", "typical_p", "tail_free_sampling_z"),
    *("penalty_repetition", "penalty_frequency", "penalty_presence", "penalty_last_n"),
    *("mirostat", "mirostat_tau", "mirostat_eta", "seed", "tokens", "n_keep"),
    *("stop_regex", "stop", "ignore_eos", "max_time"),
}
BY_KEY = {option.key: option for option in GENERATION}
NUMBERS = [option for option in GENERATION if option.type in (int, float)]
by_name = pytest.mark.parametrize("option", NUMBERS, ids=lambda option: option.name)


def test_every_name_is_used_once():
    for spell in (lambda o: o.name, lambda o: o.key, lambda o: o.field):
        assert len({spell(option) for option in OPTIONS}) == len(OPTIONS)
    openai = [option.openai for option in OPTIONS if option.openai]
    assert len(set(openai)) == len(openai)


def test_spellings():
    option = BY_KEY["tail_free_sampling_z"]
    assert (option.name, option.field) == ("tail-free-sampling-z", "tailFreeSamplingZ")
    assert BY_KEY["tokens"].openai == "max_tokens"
    assert BY_KEY["min_p"].spelled(Spelling.OPENAI) is None


def test_every_default_is_in_range():
    for option in OPTIONS:
        assert option.check(option.default) == option.default, option.name


def test_defaults_go_to_the_engine_whole():
    merged = merge(DEFAULTS, {})
    assert merged.keys() == ENGINE_KEYS
    assert merged["seed"] is None
    assert merged["stop"] == merged["stop_regex"] == []


@by_name
@pytest.mark.parametrize("upper", [True, False], ids=["upper", "lower"])
def test_the_range_ends_at_its_bounds(option, upper):
    bound = option.type(option.maximum if upper else option.minimum)
    away = math.inf if upper else -math.inf
    if option.type is int:
        beyond = bound + int(math.copysign(1, away))
    else:
        beyond = math.nextafter(bound, away)
    if not upper and option.above_minimum:
        bound, beyond = math.nextafter(bound, 1), bound
    assert check_generation({option.key: bound}) == {option.key: bound}
    with pytest.raises(OptionError, match=f"^{option.key}: must be (at|greater)") as caught:
        check_generation({option.key: beyond})
    assert caught.value.name == option.key


@pytest.mark.parametrize("value", ["1", None, True, [1], 1j, b"1"], ids=repr)
@by_name
def test_numbers_of_a_wrong_type(option, value):
    with pytest.raises(OptionError, match=r"must be a (whole )?number"):
        check_generation({option.key: value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite(value):
    with pytest.raises(OptionError, match=r"temperature: must be finite"):
        check_generation({"temperature": value})


def test_huge_integers_are_refused_not_overflowed():
    with pytest.raises(OptionError, match=r"temperature: must be at most 100"):
        check_generation({"temperature": 10**400})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ignore_eos": 1}, "ignore_eos: must be true or false"),
        ({"ignore_eos": "true"}, "ignore_eos: must be true or false"),
        ({"stop": 1}, "stop: must be a string or a list of strings"),
        ({"stop": ["a", 1]}, "stop: must be a string or a list of strings"),
        ({"stop": ["\ud800"]}, "stop: must be valid Unicode text"),
        ({"stop_regex": None}, "stop_regex: must be a string or a list of strings"),
        ({"top_k": 1.0}, "top_k: must be a whole number"),
    ],
)
def test_other_wrong_types(values, message):
    with pytest.raises(OptionError) as caught:
        check_generation(values)
    assert str(caught.value) == message


def test_names_are_those_of_the_spelling():
    assert check_generation({"topK": 3}, Spelling.FIELD) == {"top_k": 3}
    assert check_generation({"max_tokens": 3}, Spelling.OPENAI) == {"tokens": 3}
    for spelling, name in ((Spelling.FIELD, "top_k"), (Spelling.KEY, "topK")):
        with pytest.raises(OptionError, match=r"not known; did you mean top_?[kK]"):
            check_generation({name: 3}, spelling)
    with pytest.raises(OptionError, match=r"^topK: must be a whole number"):
        check_generation({"topK": "x"}, Spelling.FIELD)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("topk", "topK"),
        ("Temperature", "temperature"),
        ("temp", "temperature"),
        ("stop_regex", "stopRegex"),
        ("stop-regex", "stopRegex"),
        ("repetitionPenalty", "penaltyRepetition"),
        ("tokenz", "tokens"),
    ],
)
def test_an_unknown_name_gets_the_nearest_known_one(name, nearest):
    assert str(options.unknown(name, FIELDS)) == f"{name}: not known; did you mean {nearest}?"


@given(st.text(max_size=300))
def test_any_unknown_name_makes_one_short_printable_line(name):
    message = str(options.unknown(name, FIELDS))
    assert message.isprintable()
    assert len(message) < 800


def test_the_limits_of_a_request_can_only_go_down():
    for key in ("tokens", "max_time"):
        results = [
            merge({**DEFAULTS, key: server}, {key: request})[key]
            for server, request in ((0, 0), (0, 5), (9, 0), (9, 5), (9, 20))
        ]
        assert results == [0, 5, 9, 5, 9]
        assert merge({**DEFAULTS, key: 9}, {})[key] == 9


def test_stop_rules_of_server_and_request_apply_both():
    server = {**DEFAULTS, "stop": ("a",), "stop_regex": ("b",)}
    merged = merge(server, check_generation({"stop": ["c", ""], "stop_regex": "d"}))
    assert (merged["stop"], merged["stop_regex"]) == (["a", "c"], ["b", "d"])
    assert merge(server, check_generation({"stop_regex": ""}))["stop_regex"] == ["b"]


def test_everything_else_of_a_request_replaces_the_servers():
    for option in NUMBERS:
        if option.combine is not Combine.REPLACE or option.name == "seed":
            continue
        server = {**DEFAULTS, option.key: option.type(option.maximum)}
        low = option.type(option.minimum)
        assert merge(server, {option.key: low})[option.key] == low
    assert merge(DEFAULTS, {"seed": 7})["seed"] == 7
    assert merge({**DEFAULTS, "seed": 7}, {"seed": -1})["seed"] is None


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("topK", "0x10", 16),
        ("tokens", "1_000", 1000),
        ("tokens", "010", 8),
        ("temperature", "1e-1", 0.1),
        ("temperature", "-0.5", -0.5),
        ("temperature", "0x1p-2", 0.25),
        ("ignoreEos", "T", True),
        ("ignoreEos", "0", False),
        ("stopRegex", r"\n", (r"\n",)),
        ("stopRegex", "", ()),
        ("seed", "9223372036854775807", 2**63 - 1),
    ],
)
def test_text_of_a_form(field, text, value):
    assert parse_text(FIELDS[field], text) == value


@pytest.mark.parametrize(
    ("field", "text", "message"),
    [
        ("topK", "", 'topK: must be a whole number, not ""'),
        ("topK", "1.5", 'topK: must be a whole number, not "1.5"'),
        ("topK", "9" * 5000, f'topK: "{"9" * 64}"… is out of range'),
        ("topK", "-2", "topK: must be at least -1"),
        ("topP", "1.01", "topP: must be at most 1"),
        ("topP", "abc\n", 'topP: must be a number, not "abc\\n"'),
        ("temperature", "nan", "temperature: must be finite"),
        ("temperature", "-inf", "temperature: must be finite"),
        ("temperature", "1e999", 'temperature: "1e999" is out of range'),
        ("mirostatEta", "-0.1", "mirostatEta: must be at least 0"),
        ("ignoreEos", "yes", 'ignoreEos: must be true or false, not "yes"'),
    ],
)
def test_bad_text_of_a_form(field, text, message):
    with pytest.raises(OptionError) as caught:
        parse_text(FIELDS[field], text)
    assert str(caught.value) == message


@given(st.sampled_from(GENERATION), st.one_of(st.text(max_size=40), st.floats().map(repr)))
def test_any_text_is_a_checked_value_or_an_error(option, text):
    error = None
    try:
        value = parse_text(option, text)
    except OptionError as caught:
        error = caught
    if error is None:
        assert option.check(value) == value
    else:
        assert error.name == option.field
        assert str(error).isprintable()


def test_the_flags_of_the_table_show_gos_defaults():
    shown = {option.name: option.flag.default_text for option in OPTIONS}
    assert shown["addr"] == '"localhost:8080"'
    assert shown["temperature"] == "0.8"
    assert shown["mirostat-tau"] == "5"
    assert shown["stop"] == shown["license"] == shown["tokens"] == ""
