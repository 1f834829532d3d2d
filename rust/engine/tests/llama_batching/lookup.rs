//! Drafts by prompt lookup.

use llm_engine::{Config, Stats};

use crate::harness::{Bench, Choices, Subject, compare, greedy};
use crate::windows::WINDOW;

/// Tokens of the copy that is left to be made, or a few less.
const TOKENS: u32 = 30;

/// A text said one and a half times, so that what follows is the rest of it.
fn copy() -> String {
    let text = "On Monday the baker sold seven loaves of rye and four of wheat. \
        The miller came by at noon, paid for three sacks, and left his cart in the yard. \
        By evening it had begun to rain, so the children stayed in and played cards. ";
    format!("{text}{text}{}", &text[..90])
}

fn run(
    subject: &Subject,
    prompt: &str,
    tokens: u32,
    prompt_lookup: bool,
) -> (String, Choices, Stats) {
    let config = Config {
        context: 512,
        pool: 512,
        parallel: 1,
        queue: 1,
        prompt_lookup,
    };
    let bench = Bench::new(subject, config);
    let request = greedy(&bench.engine, prompt, tokens);
    let reply = bench.replies(vec![request]).remove(0);
    (reply.text, bench.choices(), bench.engine.stats())
}

/// Asserts that drafts change no bit; what was done with them and without.
fn compared(subject: &Subject, prompt: &str, tokens: u32) -> [Stats; 2] {
    let (text, choices, stats) = run(subject, prompt, tokens, true);
    let (expected, alone, without) = run(subject, prompt, tokens, false);
    assert_eq!(text, expected);
    let compared = compare(&alone, &choices, 0.0);
    assert!(compared >= tokens as usize, "{compared}");
    assert_eq!(stats.sampled_tokens, without.sampled_tokens);
    [stats, without]
}

#[test]
fn a_copy_takes_a_few_decodes() {
    let [stats, without] = compared(&Subject::demo(), &copy(), TOKENS);
    assert!(3 * stats.decodes < without.decodes, "{stats:?}");
}

/// Drafts that are wrong are taken out of windows that have moved on.
#[test]
fn with_sliding_windows_some_hold_and_some_do_not() {
    let [mut drafted, mut accepted] = [0; 2];
    for subject in Subject::windows().both() {
        let [stats, _] = compared(&subject, &copy(), 5 * WINDOW);
        assert!(stats.drafted_tokens > 0, "{stats:?}");
        drafted += stats.drafted_tokens;
        accepted += stats.accepted_tokens;
    }
    assert!(
        accepted > 20 && drafted > accepted + 20,
        "{accepted} of {drafted}"
    );
}

/// What llama.cpp computes of a model has to be proven. Of its F32 not even two
/// rows are single ones.
#[test]
fn what_is_only_partly_ours_is_proven_or_not_drafted() {
    compared(&Subject::mixed(), &copy(), 5 * WINDOW);
}
