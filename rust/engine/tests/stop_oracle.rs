//! The stop matcher against the obvious way to do the same: a search of the
//! whole text after each token.

use fastrand::Rng;
use llm_engine::stop::{StopMatcher, StopRules};
use regex::Regex;

/// Patterns of which each takes another way through the matcher.
const PATTERNS: &[&str] = &[
    "foo",
    "o",
    "ab|b",
    "abc|b",
    "b|abc",
    "a+",
    "a+?",
    "a*",
    "a*?b",
    "",
    "(?:)|x",
    "foo$",
    r"foo\z",
    "^foo",
    r"\Aa",
    "^",
    "$",
    r"\z",
    "^$",
    r"\b",
    r"\B",
    r"\bfoo",
    r"foo\b",
    r"foo\B",
    r"\bb\b",
    r"\Bo\B",
    r"\b\b",
    r"é\b",
    r"\bé",
    r"\w+é",
    r"(?-u:\b)b",
    r"b(?-u:\B)",
    r"(?-u:\B)é",
    "(?m)^b",
    "(?m)a$",
    "(?m)^$",
    "(?m)^b+$",
    "(?mR)a$",
    "(?mR)^b",
    "(?m)a$\n^b",
    r"a\zb",
    "b^",
    "(?i)FOO",
    "(?i)é",
    "(?i)ſ",
    "(?s)a.b",
    "a.b",
    ".*foo",
    "(?s).*foo",
    ".*",
    ".+",
    ".*b$",
    ".{3}",
    ".{2,5}é",
    "[^a]",
    "[^ab]{3}",
    "[a-f]{2,4}?o",
    r"\s+b",
    r"\S+\s",
    r"\pL+\n",
    r"\p{Greek}",
    r"\d{2}",
    "[é🦙]a",
    "🦙",
    "🦙$",
    "🦙🦙",
    r"(a|b)*c",
    "(a|ab)(c|bcd)",
    "(?:a{2}){2}",
    "((a*)*)*b",
    "x*y*z",
    r"\n\n",
    "\r\n",
    "^(?:a|b)*o$",
    "(?U)a+b",
    r"[\w.]+@",
    r"foo\b.",
    r"o\b|o\Bo",
    r"(?m)\bb$|^a",
];

const ATOMS: &[&str] = &[
    "a", "a", "b", "b", "c", "o", "fo", "foo", "f", " ", "\n", "\r", "\r\n", "é", "É", "🦙", "ſ",
    "S", "α", "1", "12", "@", ".", "x", "z", "_", "\u{301}", "-",
];

fn random_text(rng: &mut Rng) -> String {
    let atoms = 1 + rng.usize(..ATOMS.len());
    let offset = rng.usize(..ATOMS.len());
    (0..rng.usize(..40))
        .map(|_| ATOMS[(offset + rng.usize(..atoms)) % ATOMS.len()])
        .collect()
}

/// A pattern out of the grammar, nested at most `depth` deep.
fn random_pattern(rng: &mut Rng, depth: u32) -> String {
    const LEAVES: &[&str] = &[
        "a",
        "b",
        "o",
        "foo",
        "é",
        "🦙",
        ".",
        "(?s:.)",
        "[ab]",
        "[^a]",
        r"\w",
        r"\W",
        r"\s",
        r"\n",
        "^",
        "$",
        r"\A",
        r"\z",
        r"\b",
        r"\B",
        "(?m:^)",
        "(?m:$)",
        "(?mR:$)",
        "(?i:É)",
        "(?-u:\\b)",
        "",
    ];
    if depth == 0 || rng.u8(..4) == 0 {
        return (*rng.choice(LEAVES).unwrap()).to_owned();
    }
    let inner = random_pattern(rng, depth - 1);
    match rng.u8(..8) {
        0..3 => inner + &random_pattern(rng, depth - 1),
        3..5 => format!("(?:{inner}|{})", random_pattern(rng, depth - 1)),
        _ => {
            let operator = rng.choice(["*", "+", "?", "*?", "+?", "??", "{2}", "{1,3}", "{2,}?"]);
            format!("(?:{inner}){}", operator.unwrap())
        }
    }
}

/// Cuts the text into tokens of 0 to 6 characters.
fn tokens<'a>(rng: &mut Rng, text: &'a str) -> Vec<&'a str> {
    let mut rest = text;
    let mut tokens = Vec::new();
    while !rest.is_empty() {
        let len = rest
            .char_indices()
            .nth(rng.usize(..7))
            .map_or(rest.len(), |(at, _)| at);
        let (token, after) = rest.split_at(len);
        tokens.push(token);
        rest = after;
    }
    tokens
}

fn rules(patterns: &[String], literals: &[String]) -> StopRules {
    StopRules::compile(patterns, literals).expect("the rules compile")
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

/// Pushes the tokens and checks after each what a search of the whole text
/// says. Whether a rule matched.
fn check(rules: &StopRules, oracle: &[Regex], tokens: &[&str], case: &dyn Fn() -> String) -> bool {
    let mut matcher = StopMatcher::new(rules);
    let mut text = String::new();
    let mut sent = String::new();
    for token in tokens {
        text.push_str(token);
        let matched = matcher.push(token, &mut sent);
        if token.is_empty() {
            assert!(!matched, "{}", case());
            continue;
        }
        let start = oracle
            .iter()
            .filter_map(|regex| regex.find(&text))
            .map(|m| m.start())
            .min();
        assert_eq!(
            matched,
            start.is_some(),
            "matched after {text:?}, {}",
            case()
        );
        if let Some(start) = start {
            assert_eq!(sent, text[..start], "sent of {text:?}, {}", case());
            matcher.finish(&mut sent);
            assert_eq!(sent.len(), start, "nothing is left, {}", case());
            return true;
        }
        assert!(text.starts_with(&sent), "sent of {text:?}, {}", case());
    }
    matcher.finish(&mut sent);
    assert_eq!(sent, text, "everything was sent, {}", case());
    false
}

#[test]
fn agrees_with_a_search_of_the_whole_text() {
    const ROUNDS: u32 = 1500;
    let mut rng = Rng::with_seed(1);
    let mut matches = 0;
    for round in 0..ROUNDS {
        let patterns: Vec<String> = (0..1 + rng.usize(..3))
            .map(|_| match round % 2 {
                0 => (*rng.choice(PATTERNS).unwrap()).to_owned(),
                _ => random_pattern(&mut rng, 4),
            })
            .collect();
        let literals: Vec<String> = (0..rng.usize(..3))
            .map(|_| random_text(&mut rng))
            .filter(|t| !t.is_empty())
            .collect();
        let oracle: Vec<Regex> = patterns
            .iter()
            .cloned()
            .chain(literals.iter().map(|literal| regex::escape(literal)))
            .map(|pattern| Regex::new(&pattern).expect("the oracle compiles"))
            .collect();
        let rules = rules(&patterns, &literals);
        for _ in 0..4 {
            let text = random_text(&mut rng);
            let tokens = tokens(&mut rng, &text);
            let case = || format!("round {round}: {patterns:?} {literals:?} on {tokens:?}");
            matches += u32::from(check(&rules, &oracle, &tokens, &case));
        }
    }
    // Both outcomes are common, so neither half of the check is idle.
    assert!(
        (ROUNDS..3 * ROUNDS).contains(&matches),
        "{matches} of {} matched",
        4 * ROUNDS
    );
}

/// Each pattern of the list, alone, with tokens of one character and others.
#[test]
fn agrees_for_each_pattern() {
    let mut rng = Rng::with_seed(2);
    for pattern in PATTERNS {
        let oracle = [Regex::new(pattern).expect("the oracle compiles")];
        let rules = rules(&strings(&[pattern]), &[]);
        for _ in 0..50 {
            let text = random_text(&mut rng);
            let single: Vec<String> = text.chars().map(String::from).collect();
            let single: Vec<&str> = single.iter().map(String::as_str).collect();
            let random = tokens(&mut rng, &text);
            for tokens in [single, random] {
                check(&rules, &oracle, &tokens, &|| {
                    format!("{pattern:?} on {tokens:?}")
                });
            }
        }
    }
}

/// Every cut of a text that holds every kind of match into two tokens.
#[test]
fn agrees_for_each_cut_in_two() {
    let text = "a é🦙foo\r\nbé_1 foob\n\n🦙🦙a@12 ab";
    for pattern in PATTERNS {
        let oracle = [Regex::new(pattern).expect("the oracle compiles")];
        let rules = rules(&strings(&[pattern]), &[]);
        for (at, _) in text.char_indices() {
            let tokens = [&text[..at], &text[at..]];
            check(&rules, &oracle, &tokens, &|| {
                format!("{pattern:?} on {tokens:?}")
            });
        }
    }
}
