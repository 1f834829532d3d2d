"""The Go template language: vectors of real Go, provenance, and bounds."""

import sys
import time
from pathlib import Path
from typing import ClassVar

import pytest

from llm_api.templates.errors import TemplateError
from llm_api.templates.gotemplate import GoStruct, Slice, Text, limits, parse
from tests.golden import replay_templates

GOLDEN = Path(replay_templates.__file__).parent
CASES = list(replay_templates.cases([str(path) for path in GOLDEN.glob("gotemplate/*.jsonl")]))


def test_the_golden_files_are_there():
    assert len(CASES) == 873


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_golden(case):
    assert replay_templates.failure(case) is None


def test_a_replay_that_fails_says_so(tmp_path, capsys):
    path = tmp_path / "cases.jsonl"
    case = (
        '{"id": "x", "kind": "any", "entry": "", "funcs": [], "template": "%s", "data": null,'
        ' "expect": {"ok": true, "output": "a"}}\n'
    )
    path.write_text(case % "a" + case % "b" + case % "{{")
    assert replay_templates.main([str(path)]) == 1
    assert capsys.readouterr().out.endswith("\n1 passed, 2 failed\n")
    path.write_text(case % "a")
    assert replay_templates.main([str(path)]) == 0


# Provenance.


class Turn(GoStruct):
    go_type = "main.Message"
    go_fields: ClassVar = {
        "Role": lambda turn: Text.trusted(turn.role),
        "Text": lambda turn: turn.text,
    }
    go_methods: ClassVar = {
        "Shout": lambda turn: turn.text.upper(),
        "Fail": lambda turn: {}[turn.role],
    }

    def __init__(self, text="<|x|>", role="user"):
        self.role = role
        self.text = text


def marked(source, data=None, **keywords):
    """Render, with what comes from the data in brackets ⟦⟧."""
    template = parse(source, **keywords)
    stretches = template.execute("", Turn() if data is None else data)
    return "".join(f"⟦{text}⟧" if is_data else text for text, is_data in stretches)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("<s>{{.Text}}</s>", "<s>⟦<|x|>⟧</s>"),
        ("{{.Role}}: {{.Shout}}", "user: ⟦<|X|>⟧"),
        ('{{printf "%s: %s\\n" .Role .Text}}', "user: ⟦<|x|>⟧\n"),
        ('{{printf "%8s|%-7s|" .Text .Text}}', "   ⟦<|x|>⟧|⟦<|x|>⟧  |"),
        ('{{printf "%q" .Text}}', '"⟦<|x|>⟧"'),
        ('{{printf "%#q" .Text}}', "`⟦<|x|>⟧`"),
        ('{{printf "%.2s" .Text}}', "⟦<|⟧"),
        ('{{printf "%x" .Text}}', "⟦3c7c787c3e⟧"),
        ('{{printf "% x" (printf "a%.1sb" .Text)}}', "61⟦ 3c⟧ 62"),
        ('{{printf "%d" .Text}}', "%!d(string=⟦<|x|>⟧)"),
        ('{{printf "x" .Text}}', "x%!(EXTRA string=⟦<|x|>⟧)"),
        # Who writes the format can place what follows it.
        ("{{printf .Text .Role}}", "⟦<|x|>%!(EXTRA string=user)⟧"),
        ('{{slice .Text 1 3}}{{slice "<s>" 1}}', "⟦|x⟧s>"),
        ('{{slice (printf "a%sb" .Text) 0 3}}', "a⟦<|⟧"),
        ('{{index .Text 0 | printf "%c"}}{{index "<" 0 | printf "%c"}}', "⟦<⟧<"),
        ("{{index .Text 0}}", "⟦60⟧"),
        ('{{range $c := index .Text 0}}{{if eq $c 59}}{{printf "%c" $c}}{{end}}{{end}}', "⟦;⟧"),
        ('{{print "<s>" .Text "</s>"}}', "<s>⟦<|x|>⟧</s>"),
        ("{{println .Text}}", "⟦<|x|>⟧\n"),
        ('{{html "<" .Text}}', "&lt;⟦&lt;|x|&gt;⟧"),
        ('{{js "<" .Text}}', "\\u003C⟦\\u003C|x|\\u003E⟧"),
        ('{{urlquery "<" .Text}}', "%3C⟦%3C%7Cx%7C%3E⟧"),
        ("{{.}}", "{user ⟦<|x|>⟧}"),
        ('{{printf "%+v" .}}', "{Role:user Text:⟦<|x|>⟧}"),
        ('{{or "" .Text}}{{and .Text .Role}}', "⟦<|x|>⟧user"),
        ("{{$t := .Text}}{{with $t}}{{.}}{{end}}{{$t = .Role}}{{$t}}", "⟦<|x|>⟧user"),
        ('{{define "t"}}[{{.}}]{{end}}{{template "t" .Text}}', "[⟦<|x|>⟧]"),
        ('{{if eq .Text "<|x|>"}}<|y|>{{end}}', "<|y|>"),
        ("{{len .Text}}", "5"),
    ],
)
def test_provenance(source, expected):
    assert marked(source) == expected


def test_strings_of_python_are_data():
    data = {"list": ["a", {"key": "b"}], "n": 1}
    assert marked("{{.}}", data) == "map[⟦list⟧:[⟦a⟧ map[⟦key⟧:⟦b⟧]] ⟦n⟧:1]"
    assert marked("{{range $k, $v := .}}{{$k}};{{end}}", data) == "⟦list⟧;⟦n⟧;"
    assert marked("{{json .}}", data, funcs=["json"]) == (
        '{"⟦list⟧":["⟦a⟧",{"⟦key⟧":"⟦b⟧"}],"⟦n⟧":1}'
    )


def test_a_character_of_two_authors_is_data():
    source = '{{print "a\\xc3" (slice .Text 1) "b"}}'
    assert marked(source, Turn("\u00e9")) == "a⟦é⟧b"
    # Of a character that a slice cuts in two, the rest is no character.
    assert marked("{{slice .Text 0 1}}<s>", Turn("\u00e9")) == "⟦\ufffd⟧<s>"
    assert marked('{{slice .Text 0 1}}{{slice "\u00e9" 1}}<s>', Turn("\u00e9")) == "⟦é⟧<s>"


def test_bytes_that_are_not_text_survive():
    template = parse('{{slice "\u00e9" 0 1}}|{{"\\xff"}}')
    assert template.execute_bytes("", None) == b"\xc3|\xff"
    assert "".join(text for text, _ in template.execute("", None)) == "\ufffd|\ufffd"


# The way to the data, and errors.


def test_nothing_of_python_can_be_reached():
    for name in ("__class__", "role", "text", "go_fields", "upper"):
        for source in (f"{{{{.{name}}}}}", f"{{{{(.Text).{name}}}}}"):
            with pytest.raises(TemplateError, match="can't evaluate field"):
                parse(source).execute("", Turn())


def test_a_method_that_fails():
    with pytest.raises(TemplateError, match="line 2: error calling Fail") as caught:
        parse("a\n{{.Fail}}").execute("", Turn())
    assert caught.value.partial == b"a\n"
    assert caught.value.phase == "exec"


def test_a_value_that_templates_do_not_know():
    with pytest.raises(TemplateError, match="can't use a value of the type object"):
        parse("{{.x}}").execute("", {"x": object()})
    with pytest.raises(TemplateError, match="key can't be of the type int"):
        parse("{{.x}}").execute("", {1: 2})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a\n\n{{if}}", "template: line 3: missing value for if"),
        ("{{1 }", 'template: line 1: unexpected "}" in operand'),
        ("\n{{end}}", "template: line 2: unexpected {{end}}"),
        ("{{nope}}", 'template: line 1: function "nope" not defined'),
        ("{{$x}}", 'template: line 1: undefined variable "$x"'),
        ("{{range .}}\n{{.x}", "template: line 2: bad character U+007D '}'"),
        ("{{if 1}}\nx", "template: line 2: unexpected EOF"),
        (
            '{{define "a"}}x{{end}}\n{{define "a"}}y{{end}}',
            'line 2: multiple definition of template "a"',
        ),
        ("{{break}}", "template: line 1: {{break}} outside {{range}}"),
        ("{{json .}}", 'template: line 1: function "json" not defined'),
    ],
)
def test_parse_errors_name_line_and_reason(source, message):
    with pytest.raises(TemplateError) as caught:
        parse(source)
    assert caught.value.phase == "parse"
    assert str(caught.value).endswith(message)


def test_defines():
    template = parse('{{define "prompt"}}{{end}}')
    assert template.defines("prompt")
    assert not template.defines("Prompt")
    with pytest.raises(TemplateError, match='no template "Prompt"'):
        template.execute("Prompt", None)


def test_unknown_functions_of_the_caller():
    with pytest.raises(ValueError, match="unknown template functions: nope"):
        parse("", funcs=["nope"])


def test_a_slice_opens_up_to_its_array():
    messages = Slice([Turn("a"), Turn("b")], Turn.go_type)
    assert marked("{{len (slice (slice . 0 1) 0 2)}}", messages) == "2"
    assert marked('{{printf "%T" .}}', messages) == "[]main.Message"
    with pytest.raises(TemplateError, match="index out of range: 2"):
        parse("{{slice (slice . 0 1 1) 0 2}}").execute("", messages)


# Bounds.

DOUBLE = '{{$x := "%s"}}{{range 40}}{{$x = print $x $x}}{{end}}'


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ('{{define "a"}}{{template "a"}}{{end}}{{template "a"}}', "maximum template depth"),
        (
            '{{define "a"}}{{template "b" .}}{{end}}{{define "b"}}{{if 1}}{{template "a" .}}{{end}}'
            '{{end}}{{template "a"}}',
            "maximum template depth",
        ),
        ("{{range 1000000000}}x{{end}}", "steps"),
        ("{{range 9223372036854775807}}{{end}}", "steps"),
        ("{{range 100000}}{{range 100000}}{{end}}{{end}}", "steps"),
        ('{{range 1000}}{{printf "%1000000d" 1}}{{end}}', "output is too long"),
        ('{{range 1000}}{{$x := printf "%.1000000f" 1.0}}{{end}}', "bytes of text"),
        (DOUBLE % "a", "bytes of text"),
        ('{{$x := "<"}}{{range 23}}{{$x = print $x $x}}{{end}}{{html $x}}', "steps"),
        ('{{$x := "%["}}{{range 22}}{{$x = print $x $x}}{{end}}{{printf $x}}', "steps"),
    ],
)
def test_no_template_runs_forever(source, reason):
    start = time.process_time()
    with pytest.raises(TemplateError, match=reason):
        parse(source).execute("", None)
    assert time.process_time() - start < 15


def test_the_bound_of_steps_is_the_documented_one():
    count = limits.MAX_STEPS - 3
    template = parse("{{range .}}{{end}}")
    assert template.execute_bytes("", count) == b""
    with pytest.raises(TemplateError, match="steps"):
        template.execute_bytes("", count + 3)


def test_depth_is_no_matter_of_the_interpreter():
    depth = 5000
    assert depth > sys.getrecursionlimit()
    source = "{{if 1}}" * depth + "x" + "{{end}}" * depth
    assert parse(source).execute_bytes("", None) == b"x"
    source = "{{" + "(" * depth + "1" + ")" * depth + "}}"
    assert parse(source).execute_bytes("", None) == b"1"
    source = "{{if 0}}" + "{{else if 0}}" * depth + "{{else}}x{{end}}"
    assert parse(source).execute_bytes("", None) == b"x"
    source = (
        '{{define "d"}}{{if .}}{{template "d" (slice . 1)}}{{else}}x{{end}}{{end}}'
        '{{template "d" .}}'
    )
    assert parse(source).execute_bytes("", "a" * depth) == b"x"


def test_too_deep_is_an_error_of_the_template():
    with pytest.raises(TemplateError, match="max expression depth exceeded"):
        parse("{{" + "(" * 10_001 + "1" + ")" * 10_001 + "}}")
    nested = None
    for _ in range(5000):
        nested = [nested]
    for source in ("{{.}}", "{{json .}}"):
        with pytest.raises(TemplateError, match="nested too deeply"):
            parse(source, funcs=["json"]).execute("", nested)
