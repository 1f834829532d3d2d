//! Drafts by prompt lookup.

use std::path::Path;

use llm_engine::{Config, Stats};

use crate::harness::{Bench, Choices, compare, greedy, model};

/// Tokens of the copy that is left to be made, or a few less.
const TOKENS: u32 = 30;

const WINDOW: &str = "LLM_API_TEST_WINDOW_MODEL";

/// A text said one and a half times, so that what follows is the rest of it.
fn copy() -> String {
    let text = "On Monday the baker sold seven loaves of rye and four of wheat. \
        The miller came by at noon, paid for three sacks, and left his cart in the yard. \
        By evening it had begun to rain, so the children stayed in and played cards. ";
    format!("{text}{text}{}", &text[..90])
}

fn run(model: &Path, prompt_lookup: bool) -> (String, Choices, Stats) {
    let config = Config {
        context: 512,
        pool: 512,
        parallel: 1,
        queue: 1,
        prompt_lookup,
    };
    let bench = Bench::new(model, config);
    let request = greedy(&bench.engine, &copy(), TOKENS);
    let reply = bench.replies(vec![request]).remove(0);
    (reply.text, bench.choices(), bench.engine.stats())
}

fn copies(variable: &str) {
    let Some(model) = model(variable) else { return };
    let (text, choices, stats) = run(&model, true);
    let (expected, alone, without) = run(&model, false);
    assert_eq!(text, expected);
    let compared = compare(&alone, &choices);
    assert!(compared >= TOKENS as usize, "{compared}");
    assert_eq!(stats.sampled_tokens, without.sampled_tokens);
    assert!(3 * stats.decodes < without.decodes, "{stats:?}");
}

#[test]
fn a_copy_takes_a_few_decodes() {
    copies("LLM_API_TEST_MODEL");
}

#[test]
fn with_sliding_windows_too() {
    copies(WINDOW);
}
