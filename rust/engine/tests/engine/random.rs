//! Seeded random lives of an engine: arrivals, cancels, faults, a small pool.

use std::collections::HashMap;

use llm_engine::model::Token;
use llm_engine::model::fake::Script;
use llm_engine::model::fault::Fault;
use llm_engine::{FinishReason, Request};

use crate::harness::{Bench, config, expect_panics, limited, watched};

/// The whole text of a reply that nothing ends but its length.
fn reference(script: &Script, request: &Request, context: usize) -> String {
    let mut tokens: Vec<Token> = request.prompt.clone();
    let mut text = String::new();
    while text.len() < request.max_tokens.unwrap() as usize && tokens.len() < context {
        let [token, _] = script.next(&tokens, &[]);
        tokens.push(token);
        text.push(token as u8 as char);
    }
    text
}

fn live(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let context = random.u32(16..200);
    let pool = context + random.u32(0..200);
    let parallel = random.u32(1..8);
    let kind = ["", "window=9;", "whole;"][random.usize(0..3)];
    let (script, name) =
        [(Script::Hash, "hash"), (Script::Refrain, "refrain")][random.usize(0..2)].clone();
    let model = format!("batch={};{kind}{name}", random.u32(parallel..64));
    let fault = match random.u8(0..4) {
        0 => Some(Fault::Decode(random.u64(1..60))),
        1 => Some(Fault::Panic(random.u64(1..60))),
        _ => None,
    };
    let mut bench = Bench::faulty(config(context, pool, parallel, 40), &model, fault);
    let mut requests = HashMap::new();
    for _ in 0..40 {
        let prompt = "p".repeat(random.usize(0..context as usize - 2));
        let request = limited(&format!("{prompt}{}", random.u8(0..10)), random.u32(1..80));
        let request = Request {
            prompt: request.prompt[1..].to_vec(),
            ..request
        };
        requests.insert(bench.submit(request.clone()), request);
        if random.u8(0..4) == 0 {
            bench.engine.cancel(random.u64(1..=40));
        }
        if random.bool() {
            bench.drain();
        }
    }
    let mut counts = [0; 3];
    for (&id, request) in &requests {
        let reply = bench.reply(id);
        let whole = reference(&script, request, context as usize);
        match reply.reason {
            FinishReason::Length => assert_eq!(reply.text, whole),
            FinishReason::Cancelled | FinishReason::Error(_) => {
                assert!(whole.starts_with(&reply.text));
            }
            other => panic!("{other:?}"),
        }
        counts[match reply.reason {
            FinishReason::Cancelled => 1,
            FinishReason::Error(_) => 2,
            _ => 0,
        }] += 1;
    }
    let stats = bench.engine.stats();
    assert_eq!([stats.completed, stats.cancelled, stats.failed], counts);
    // One more, so that the context is there again after a panic, which may
    // also come only now.
    assert!((0..2).any(|_| bench.alone(limited("x", 1)).text.len() == 1));
    bench.assert_idle();
}

#[test]
fn every_reply_is_right_or_broken_off_as_ordered() {
    expect_panics();
    for seed in 0..150 {
        watched(move || {
            eprintln!("seed {seed}");
            live(seed);
        });
    }
}
