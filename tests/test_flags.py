"""The command line against golden output of Go's flag package."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_api import flags, strconv
from llm_api.flags import Flag, FlagError, HelpRequested

GOLDEN = json.loads((Path(__file__).parent / "golden" / "flags.json").read_text())

FLAGS = (
    Flag("int", "int", strconv.parse_int, "a whole number", "512"),
    Flag("float", "float", strconv.parse_float, "a number", "0.8"),
    Flag("string", "string", str, "a text\nof two lines"),
    Flag("name", "string", str, "a text with a default", '"localhost:8080"'),
    Flag("bool", "", strconv.parse_bool, "a switch"),
    Flag("b", "", strconv.parse_bool, "a switch of one letter"),
    Flag("i", "int", strconv.parse_int, "a number of one letter"),
    Flag("multi", "value", str, "a text, repeatable", repeated=True),
)


def go_value(name, text):
    """The value that Go printed as `text`."""
    if name in ("bool", "b"):
        return text == "true"
    if name in ("int", "i"):
        return int(text)
    if name == "float":
        return float(text)
    return tuple(text) if name == "multi" else text


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: " ".join(case["argv"])[:40])
def test_as_go(case):
    if case["error"] == "flag: help requested":
        with pytest.raises(HelpRequested):
            flags.parse(FLAGS, case["argv"])
        return
    if case["error"]:
        with pytest.raises(FlagError) as caught:
            flags.parse(FLAGS, case["argv"])
        assert str(caught.value) == case["error"]
        return
    parsed = flags.parse(FLAGS, case["argv"])
    assert list(parsed.arguments) == case["rest"]
    expected = {name: go_value(name, text) for name, text in case["set"].items()}
    assert str(dict(parsed.values)) == str({name: expected[name] for name in parsed.values})
    assert parsed.values.keys() == expected.keys()


def test_usage_as_go():
    assert flags.usage(FLAGS) == GOLDEN["usage"]


def test_the_golden_cases_cover_every_error():
    errors = " ".join(case["error"] for case in GOLDEN["cases"])
    for text in ("parse error", "value out of range", "bad flag syntax", "not defined", "needs an"):
        assert text in errors


def test_an_argument_that_is_not_utf8_is_quoted_as_its_bytes():
    with pytest.raises(FlagError, match=r'invalid value "a\\xff" for flag -int: parse error'):
        flags.parse(FLAGS, ["-int", b"a\xff".decode(errors="surrogateescape")])


@given(st.lists(st.text(alphabet="-=bint01xe._ \x00é", max_size=8), max_size=6))
def test_any_command_line_is_read_or_refused(argv):
    try:
        parsed = flags.parse(FLAGS, argv)
    except (FlagError, HelpRequested):
        return
    rest = parsed.arguments
    assert rest == tuple(argv[len(argv) - len(rest) :])


@given(st.integers(strconv.INT_MIN, strconv.INT_MAX))
def test_every_integer_comes_back(value):
    assert strconv.parse_int(str(value)) == value
    sign = "-" if value < 0 else ""
    assert strconv.parse_int(f"{sign}0x{abs(value):x}") == value


@given(st.floats(allow_infinity=False, allow_nan=False))
def test_every_float_comes_back(value):
    assert strconv.parse_float(repr(value)) == value
    assert strconv.parse_float(value.hex()) == value
