"""The Go template language under fuzzing: TemplateError is all that can go wrong."""

import contextlib
import time

from hypothesis import given, settings
from hypothesis import strategies as st

from llm_api.templates.errors import TemplateError
from llm_api.templates.gotemplate import parse

SECONDS = 10

DATA = {"s": "h\u00e9 <|x|>", "n": 3, "f": 1.5, "l": ["a", None, 2], "m": {"k": "v"}, "z": None}


def words(text):
    return st.sampled_from(text.split())


fragments = words(
    "{{ }} {{- -}} ( ) | . $ $x := = , .s .n .l .m.k if else end range with define template block"
    ' break continue nil true 1 -1 1.5 0x1F 1+2i \'a\' "a" "%d%s%[2]*q" `r` printf print len'
    " index slice eq lt and or not html js urlquery call json /* */ text \u00e9"
)
fragment_soup = st.lists(fragments, max_size=30).flatmap(
    lambda parts: st.sampled_from(["", " "]).map(lambda separator: separator.join(parts))
)

operands = st.recursive(
    words('. $ .s .n .f .l .m .m.k .z .missing $.s 0 1 -2 1.5 1i \'a\' "" "abc" "%5.2v|%q" true'),
    lambda inner: st.tuples(
        words(
            "print println printf html js urlquery len not index slice eq ne lt le gt ge and or"
            " call json"
        ),
        st.lists(inner, min_size=1, max_size=3),
        st.sampled_from(["", ".k"]),
    ).map(lambda call: f"({call[0]} {' '.join(call[1])}){call[2]}"),
    max_leaves=8,
)
formats = st.text("%#0+- 123[]*.vTtdxXoOqcUbeEfFgGsw!\u00e9", max_size=12).map(
    lambda text: f"printf `{text}`"
)
pipelines = st.one_of(
    operands,
    st.tuples(formats, st.lists(operands, max_size=3)).map(
        lambda call: " ".join([call[0], *call[1]])
    ),
    st.tuples(operands, st.sampled_from(["len", "print", "html", 'printf "%v"', "eq 1"])).map(
        " | ".join
    ),
)
templates = st.recursive(
    st.one_of(st.sampled_from(["", "x", " \n", "}}"]), pipelines.map("{{{{{}}}}}".format)),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(
            st.sampled_from(["if", "with", "range", "range $i, $x :="]), pipelines, inner
        ).map(lambda parts: f"{{{{{parts[0]} {parts[1]}}}}}{parts[2]}{{{{end}}}}"),
        st.tuples(pipelines, inner, inner).map(
            lambda parts: (
                f"{{{{range {parts[0]}}}}}{parts[1]}{{{{break}}}}{{{{else}}}}{parts[2]}{{{{end}}}}"
            )
        ),
        st.tuples(pipelines, inner).map(
            lambda parts: f"{{{{$x := {parts[0]}}}}}{{{{with $x}}}}{parts[1]}{{{{end}}}}{{{{$x}}}}"
        ),
        inner.map('{{{{template "t" .}}}}{}'.format),
    ),
    max_leaves=10,
)


def check(source):
    """Run a template: it comes to an output, or fails as templates do."""
    start = time.process_time()
    with contextlib.suppress(TemplateError):
        text = parse(source, funcs=["json"]).execute_text("", DATA)
        assert len(text.raw) == len(text.mask)
    assert time.process_time() - start < SECONDS


@settings(max_examples=400, deadline=None)
@given(st.text(max_size=60))
def test_any_text(text):
    check(text)
    check("{{" + text + "}}")


@settings(max_examples=600, deadline=None)
@given(fragment_soup)
def test_soup_of_fragments(source):
    check(source)
    check("{{" + source + "}}{{end}}")


@settings(max_examples=600, deadline=None)
@given(templates)
def test_templates_of_a_grammar(body):
    check('{{define "t"}}[{{.}}]{{end}}' + body)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40))
def test_text_of_a_client_stays_data(text):
    source = (
        "<a>{{.s}}<b>{{printf `%s` .s}}<c>{{slice .s 0}}<d>{{range .l}}{{.}}{{end}}<e>{{print .s}}"
    )
    stretches = parse(source).execute("", {"s": text, "l": [text]})
    assert "".join(part for part, is_data in stretches if not is_data) == "<a><b><c><d><e>"
    assert "".join(part for part, is_data in stretches if is_data) == text * 5
