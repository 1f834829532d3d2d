//! Requests that begin as others did.

use std::ops::RangeInclusive;

use llm_engine::model::{Reuse, Span};
use llm_engine::{Config, Request};

use crate::harness::{Bench, Choices, ROUNDING, Subject, compare, greedy};
use crate::windows::WINDOW;

/// About 600 tokens.
fn story() -> String {
    days(0, 32)
}

fn days(first: usize, count: usize) -> String {
    let names = ["Ann", "Bob", "Cleo", "Dan", "Eve", "Finn", "Gus", "Hal"];
    let line = |n: usize| {
        let (name, other) = (names[n % 8], names[(n * 3 + 1) % 8]);
        format!(
            "On day {n}, {name} walked {} miles to meet {other}. ",
            n * 7 % 31
        )
    };
    (first..first + count).map(line).collect()
}

fn config(pool: u32, parallel: u32) -> Config {
    Config {
        context: 1024,
        pool,
        parallel,
        queue: 16,
        prompt_lookup: false,
    }
}

/// The choices of an engine that has done nothing before.
fn fresh(subject: &Subject, request: Request) -> (String, Choices) {
    let bench = Bench::new(subject, config(1024, 1));
    let reply = bench.replies(vec![request]).remove(0);
    assert_eq!(reply.usage.cached_tokens, 0);
    (reply.text, bench.choices())
}

fn drawn(request: Request, seed: u64) -> Request {
    let mut request = request;
    request.sampling.temperature = 0.8;
    request.sampling.top_p = 0.9;
    request.sampling.seed = Some(seed);
    request
}

/// Three turns, each with what is new since the one before.
fn turns(subject: &Subject, sampled: bool) {
    let bench = Bench::new(subject, config(1024, 2));
    let mut request = greedy(&bench.engine, &story(), 24);
    for turn in 0..3 {
        if sampled {
            request = drawn(request, 7 + turn);
        }
        let reply = bench.replies(vec![request.clone()]).remove(0);
        let (text, choices) = fresh(subject, request.clone());
        assert!(compare(&choices, &bench.choices(), ROUNDING) > 0);
        if turn == 0 && subject.kernels {
            assert_eq!(text, reply.text);
            compare(&choices, &bench.choices(), 0.0);
        }
        let cached = reply.usage.cached_tokens as usize;
        assert!(cached == 0 || turn > 0);
        assert!(cached + 40 > request.prompt.len() || turn == 0, "{cached}");
        // As chat templates do, this ends a turn in its own way.
        let more = [Span {
            text: format!("{}\nTurn {turn}. Who is Ann?", reply.text.trim_end()),
            is_data: true,
        }];
        let more = bench.engine.vocab().tokenize(&more).unwrap();
        let bos = bench.engine.vocab().tokenize(&[]).unwrap();
        request.prompt.extend(&more[bos.len()..]);
    }
}

/// A prompt that many have, and a question of each.
fn at_once(subject: &Subject) {
    let bench = Bench::new(subject, config(8192, 8));
    let requests: Vec<Request> = (0..8)
        .map(|n| greedy(&bench.engine, &format!("{}{n} and", story()), 12))
        .collect();
    let prompt = requests[0].prompt.len();
    bench.replies(requests.clone());
    let stats = bench.engine.stats();
    assert!(stats.computed_tokens < 2 * prompt as u64, "{stats:?}");
    assert_eq!(stats.prefix_hits, 7);
    let choices = bench.choices();
    for request in requests.into_iter().step_by(3) {
        let (_, alone) = fresh(subject, request);
        assert!(compare(&alone, &choices, ROUNDING) > 0);
    }
}

#[test]
fn a_next_turn_reads_as_if_all_were_computed() {
    turns(&Subject::demo(), false);
    turns(&Subject::demo(), true);
}

#[test]
fn a_shared_prompt_reads_as_if_each_had_its_own() {
    at_once(&Subject::demo());
}

#[test]
fn a_next_turn_with_the_kernels_of_llama_cpp() {
    let [_, subject] = Subject::demo().both();
    turns(&subject, false);
}

#[test]
fn the_same_with_sliding_windows() {
    for subject in Subject::windows().both() {
        let bench = Bench::new(&subject, config(1024, 1));
        assert_eq!(bench.engine.info().reuse, Reuse::Window);
        drop(bench);
        turns(&subject, false);
        turns(&subject, true);
        at_once(&subject);
    }
}

#[test]
fn a_window_that_slid_away_is_not_gone_on_from() {
    for subject in &Subject::windows().both() {
        let bench = Bench::new(subject, config(4096, 1));
        let request = |text: &str| greedy(&bench.engine, text, 8);
        bench.replies(vec![request(&days(0, 50))]);
        // Takes what has slid out of the window of the first.
        let other = days(100, 40);
        let other = other.trim_end();
        let said = bench.replies(vec![request(other)]).remove(0).text;
        let reads = |text: String, cached: RangeInclusive<u32>| {
            let request = request(&text);
            let reply = bench.replies(vec![request.clone()]).remove(0);
            let found = reply.usage.cached_tokens;
            assert!(cached.contains(&found), "{found} of {text}");
            let (_, choices) = fresh(subject, request);
            assert!(compare(&choices, &bench.choices(), ROUNDING) > 0);
        };
        reads(format!("{} And then", days(0, 30)), 0..=0);
        // What is in its window still is of use.
        reads(format!("{other} {said} And then"), 500..=1000);
        // Of the window before what was said the first cells are gone.
        reads(format!("{other} But then"), 0..=0);
    }
}

/// As long as its window is there, a prompt is not computed again.
#[test]
fn a_prompt_again_after_a_short_reply_and_a_long_one() {
    for subject in &Subject::windows().both() {
        let bench = Bench::new(subject, config(1024, 1));
        let request = |max_tokens| greedy(&bench.engine, &days(0, 6), max_tokens);
        let prompt = request(1).prompt.len() as u32;
        assert!(prompt > WINDOW);
        let (_, choices) = fresh(subject, request(12 * WINDOW));
        for (max_tokens, cached) in [
            (12 * WINDOW, 0),
            (WINDOW / 2, 0),
            // All but the last token, whose logits are wanted.
            (WINDOW / 2, prompt - 1),
        ] {
            let reply = bench.replies(vec![request(max_tokens)]).remove(0);
            assert_eq!(reply.usage.cached_tokens, cached, "before {max_tokens}");
            assert!(compare(&choices, &bench.choices(), ROUNDING) > 0);
        }
    }
}
