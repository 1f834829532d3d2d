//! What stop rules hold back, and which rules are refused.

use std::time::{Duration, Instant};

use fastrand::Rng;
use llm_engine::Error;
use llm_engine::stop::{HOLD_BACK, MAX_RULE_LEN, MAX_RULES, StopMatcher, StopRules};

fn rules(patterns: &[String], literals: &[String]) -> StopRules {
    StopRules::compile(patterns, literals).expect("the rules compile")
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

#[test]
fn only_what_may_become_a_match_is_held_back() {
    let mut matcher = StopMatcher::new(&rules(&[], &strings(&["\nUser:", "</s>"])));
    let mut sent = String::new();
    let mut pushed = |token: &str| {
        let before = sent.len();
        let matched = matcher.push(token, &mut sent);
        (sent[before..].to_owned(), matched)
    };
    assert_eq!(pushed("Hi"), ("Hi".to_owned(), false));
    assert_eq!(pushed(" a<"), (" a".to_owned(), false));
    assert_eq!(pushed("/"), (String::new(), false));
    assert_eq!(pushed("b>.\nUs"), ("</b>.".to_owned(), false));
    assert_eq!(pushed("e"), (String::new(), false));
    assert_eq!(pushed("\nUse"), ("\nUse".to_owned(), false));
    assert_eq!(pushed("r: x"), (String::new(), true));
}

#[test]
fn no_rules_hold_nothing_back() {
    for rules in [StopRules::none(), rules(&[], &[])] {
        let mut matcher = StopMatcher::new(&rules);
        let mut sent = String::new();
        assert!(!matcher.push("a", &mut sent));
        assert_eq!(sent, "a");
    }
}

#[test]
fn what_is_held_back_is_bounded() {
    let mut rng = Rng::with_seed(3);
    for pattern in ["(?s)a.*foo", "(?s).*foo", r"(?:a|é|\n)*foo"] {
        let rules = rules(&strings(&[pattern]), &[]);
        let mut matcher = StopMatcher::new(&rules);
        let (mut text, mut sent) = ("a".to_owned(), String::new());
        assert!(!matcher.push("a", &mut sent));
        while text.len() < 3 * HOLD_BACK {
            let token = ["a", "é", "aé", "éaaaa\né"][rng.usize(..4)];
            text.push_str(token);
            assert!(!matcher.push(token, &mut sent));
            assert!(text.starts_with(&sent));
            let held = text.len() - sent.len();
            assert!(held <= HOLD_BACK, "{held} bytes are held");
            let full = HOLD_BACK.min(text.len()) - held;
            assert!(full < 'é'.len_utf8(), "{full} bytes are sent too early");
        }
        let before = sent.clone();
        assert!(matcher.push("afoo", &mut sent));
        matcher.finish(&mut sent);
        assert_eq!(sent, before, "the rest of the match is dropped");
    }
}

#[test]
fn refuses_what_is_malformed_or_too_big_and_does_so_fast() {
    let big_class = r"\pL".repeat(MAX_RULE_LEN / 3);
    let folded = format!("(?i){}", r"\w".repeat(MAX_RULE_LEN / 2 - 4));
    let deep = "(".repeat(500) + &")".repeat(500);
    let negated = "[^".repeat(300) + "a" + &"]".repeat(300);
    let cases: &[(&str, &str)] = &[
        ("a(b", "unclosed group"),
        ("*", "repetition operator missing expression"),
        ("[a", "unclosed character class"),
        (r"\p{Nonsense}", "Unicode property not found"),
        (r"(?-u:\xFF)", "invalid UTF-8"),
        (r"(a)\1", "backreferences are not supported"),
        ("(?=a)", "look-around"),
        (r"\C", "unrecognized escape"),
        (&deep, "nested"),
        ("(a{1000}){1000}", "more than"),
        ("(((a{999}){999}){999}){999}", "more than"),
        ("((((){999}){999}){999}){999}b", ""),
        ("(((a?){500}){500}){500}", "more than"),
        (&big_class, "more than"),
        (&folded, "more than"),
        (&negated, ""),
        (&"a".repeat(MAX_RULE_LEN + 1), "longer than"),
    ];
    for (pattern, expected) in cases {
        let started = Instant::now();
        let result = StopRules::compile(&strings(&["fine", pattern, "last"]), &[]);
        let took = started.elapsed();
        assert!(took < Duration::from_secs(1), "{pattern:.20} took {took:?}");
        if !expected.is_empty() {
            let Err(Error::StopPattern {
                pattern: refused,
                reason,
            }) = result
            else {
                panic!("{pattern:.20} is not refused");
            };
            assert_eq!(&refused, pattern);
            assert!(reason.contains(expected), "{reason}");
            assert!(!reason.contains('\n'), "{reason}");
        }
    }
    rules(&strings(&[r"\w{50}"]), &[]);
    rules(&strings(&[".{2000}"]), &[]);
    assert!(StopRules::compile(&[], &strings(&["a", ""])).is_err());
    assert!(StopRules::compile(&vec!["a".to_owned(); MAX_RULES], &[]).is_ok());
    assert!(StopRules::compile(&vec!["a".to_owned(); MAX_RULES], &strings(&["a"])).is_err());
}
