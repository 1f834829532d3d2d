//! What stop rules and the text decoder cost for one token, early and late in
//! a reply. `cargo bench --manifest-path benches/Cargo.toml --bench stop`

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use llm_engine::stop::{StopMatcher, StopRules};
use llm_engine::text::TextDecoder;

/// Prose as tokens of about five bytes; no rule below matches in it.
const TOKENS: [&str; 20] = [
    "The", " quick", " brown", " fox", " (", "vulpes", ")", " jumped", " over", " 12", " dogs",
    ",", " été", " as", " usual", ".\n", "Then", " User", " slept", ".",
];

fn rule_sets() -> Vec<(&'static str, StopRules)> {
    let compile = |patterns: &[&str], literals: &[&str]| {
        let owned = |texts: &[&str]| texts.iter().map(|&t| t.to_owned()).collect::<Vec<_>>();
        StopRules::compile(&owned(patterns), &owned(literals)).expect("the rules compile")
    };
    let literals = [
        "\nUser:",
        "\nAssistant:",
        "</s>",
        "<|im_end|>",
        "<|eot_id|>",
        "###",
        "\n\n\n",
        "[INST]",
        "```\n",
        "Q:",
    ];
    let patterns = [
        r"\n\s*User:",
        r"(?i)\bassistant:",
        r"</?s>",
        r"<\|\w+\|>",
        r"#{3,}",
        r"\n{3}",
        r"\[/?INST\]",
        r"(?m)^Q\d*:",
        r"\d{4}-\d{2}-\d{2}",
        r"end\.$",
    ];
    vec![
        ("none", StopRules::none()),
        ("10 literals", compile(&[], &literals)),
        ("10 patterns", compile(&patterns, &[])),
        // A match is possible all the time; and with a thousand threads.
        ("always possible", compile(&[r".*\bnever\b"], &[])),
        ("thousand threads", compile(&[r"(?s).*.{0,1000}\x00"], &[])),
    ]
}

/// A matcher that has seen a reply of `len` bytes.
fn after(len: usize, rules: &StopRules) -> StopMatcher {
    let mut matcher = StopMatcher::new(rules);
    let mut out = String::with_capacity(len + 16);
    let mut seen = 0;
    for token in TOKENS.iter().cycle() {
        if seen >= len {
            break;
        }
        assert!(!matcher.push(token, &mut out));
        seen += token.len();
    }
    matcher
}

fn stop(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("stop: 20 tokens");
    for (name, rules) in rule_sets() {
        for reply in [100, 30_000] {
            group.bench_function(BenchmarkId::new(name, reply), |bencher| {
                bencher.iter_batched_ref(
                    || (after(reply, &rules), String::with_capacity(4096)),
                    |(matcher, out)| {
                        for token in TOKENS {
                            black_box(matcher.push(token, out));
                        }
                    },
                    BatchSize::NumIterations(16),
                );
            });
        }
    }
    group.finish();
}

fn text(criterion: &mut Criterion) {
    criterion.bench_function("text: 20 tokens", |bencher| {
        let mut decoder = TextDecoder::new();
        bencher.iter_batched_ref(
            || String::with_capacity(4096),
            |out| {
                for token in TOKENS {
                    decoder.push(black_box(token.as_bytes()), out);
                }
            },
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, stop, text);
criterion_main!(benches);
