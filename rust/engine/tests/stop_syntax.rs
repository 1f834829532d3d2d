//! The syntax of stop regexes against Go's `regexp`, which has RE2's. The
//! expected results are Go's: where the leftmost match in the text starts.

use llm_engine::stop::{StopMatcher, StopRules};

/// Where the leftmost match starts; `Err` if the pattern is refused.
fn find(pattern: &str, text: &str) -> Result<Option<usize>, String> {
    let rules = StopRules::compile(&[pattern.to_owned()], &[]).map_err(|e| e.to_string())?;
    let mut sent = String::new();
    let matched = StopMatcher::new(&rules).push(text, &mut sent);
    Ok(matched.then_some(sent.len()))
}

#[test]
fn finds_what_go_finds() {
    for (pattern, text, start) in [
        // Quotes and escapes.
        (r"\Qa.b\E+", "a.bbb", Some(0)),
        (r"\Qa.b\E+", "aXb", None),
        (r"x\Q[*", "y x[*", Some(2)),
        (r"\Q\E", "ab", Some(0)),
        (r"\Q\\E", r"a\", Some(1)),
        (r"\101\0?\12", "xA\n", Some(1)),
        (r"\<\/s\>", "a</s>", Some(1)),
        (r"\_\-\ \#", "_- #", Some(0)),
        (r"\x41\x{42}", "zAB", Some(1)),
        (r"\a\f\t\n\r\v", "\x07\x0c\t\n\r\x0b", Some(0)),
        (r"\b{start}a", "x {start}a", None),
        (r"\b{start}a", "x{start}a", Some(1)),
        // Classes and names.
        (r"\pL\p{^L}\P{^Lu}\P{Greek}", "1a1Ab", Some(1)),
        (r"[\p{^L}]", "ab1", Some(2)),
        (r"[[:alpha:]][[:^alpha:]]", "1a1", Some(1)),
        (r"[[(]User", "a (User", Some(2)),
        (r"[[]", "a[", Some(1)),
        (r"[]a]+", "x]a", Some(1)),
        (r"[^]a]", "]ax", Some(2)),
        (r"[a&&b]", "c&", Some(1)),
        (r"[a~~b]", "c~", Some(1)),
        (r"[\w--]", "+-", Some(1)),
        (r"[+--]", "#,", Some(1)),
        (r"[--/]", "a.", Some(1)),
        (r"[\d-z]", "y-", Some(1)),
        (r"[\pL-z]", "1-", Some(1)),
        (r"[\x41-C]", "bB", Some(1)),
        (r"[a\]b]", "]", Some(0)),
        // Braces that are no repetition.
        ("{{user}}", "a{{user}}", Some(1)),
        ("a{,2}", "aa{,2}", Some(1)),
        ("a{2}", "baa", Some(1)),
        ("a{2,}$", "abaaa", Some(2)),
        ("x{", "x{", Some(0)),
        // Flags and names.
        (r"(?i)(?P<n>A)(?<m>b)", "xaB", Some(1)),
        (r"(?s)a.b", "a\nb", Some(0)),
        (r"a.b", "a\nb", None),
        (r"(?m)^b$", "a\nb\nc", Some(2)),
        (r"^b$", "a\nb\nc", None),
        (r"(?U)a+?b", "aab", Some(0)),
        (r"a$", "a\n", None),
        (r"a\z", "aa", Some(1)),
    ] {
        assert_eq!(find(pattern, text), Ok(start), "{pattern:?} in {text:?}");
    }
}

#[test]
fn refuses_what_go_refuses() {
    for pattern in [
        r"\1",
        r"(a)\8",
        r"\C",
        r"\Z",
        r"\E",
        r"\h",
        r"\x",
        r"\x4",
        r"\x{110000}",
        r"\xZZ",
        r"\p",
        r"\p{",
        r"\p{X}",
        "[",
        "[a",
        "[]",
        "[^]",
        "[b-a]",
        r"[a-\d]",
        "[[:foo:]]",
        "[[:alpha:]",
        "(",
        "a)",
        "(?P<n>",
        "(?=a)",
        "(?<!a)",
        "(?>a)",
        "*",
        "a|*",
        "(?z)",
        "a{2,1}",
        "\\",
        r"a{99999999999}",
    ] {
        assert!(find(pattern, "").is_err(), "{pattern:?} is not refused");
    }
}

/// The one difference on purpose.
#[test]
fn perl_classes_know_unicode() {
    assert_eq!(find(r"\W", "é "), Ok(Some(2)));
    assert_eq!(find(r"\bx", "éx x"), Ok(Some(4)));
    assert_eq!(find(r"(?-u:\b)x", "éx x"), Ok(Some(2)));
    assert_eq!(find(r"\d\s", "٣\u{2003}"), Ok(Some(0)));
}

#[test]
fn no_pattern_panics() {
    const PIECES: &[&str] = &[
        "\\", "\\x", "\\p", "\\P", "{", "}", "{^", "[", "]", "^", "-", ":", "[:", ":]", "é", "🦙",
        "a", "1", "&&", "(?", ")", "(", "*", "{2}", ",", "\\Q", "\\E", "L", "~~", "\0",
    ];
    let mut rng = fastrand::Rng::with_seed(5);
    for _ in 0..50_000 {
        let pattern: String = (0..rng.usize(..8))
            .map(|_| PIECES[rng.usize(..PIECES.len())])
            .collect();
        let _ = StopRules::compile(&[pattern], &[]);
    }
}
