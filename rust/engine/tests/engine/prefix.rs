//! Requests that begin as others did: the same text, and less to compute.

use llm_engine::model::fake::Script;
use llm_engine::{FinishReason, Request};

use crate::harness::{Bench, config, limited, request, watched};

const KINDS: [&str; 3] = ["hash", "window=20;hash", "whole;hash"];

/// A request that goes on where another one ended.
fn next_turn(before: &Request, reply: &str, more: &str) -> Request {
    let said = reply.bytes().chain(more.bytes()).map(i32::from);
    Request {
        prompt: before.prompt.iter().copied().chain(said).collect(),
        ..before.clone()
    }
}

fn hash(request: &Request) -> String {
    let mut tokens = request.prompt.clone();
    for _ in 0..request.max_tokens.unwrap() {
        tokens.push(Script::Hash.next(&tokens, &[])[0]);
    }
    let reply = &tokens[request.prompt.len()..];
    reply.iter().map(|&token| token as u8 as char).collect()
}

#[test]
fn each_turn_computes_what_is_new() {
    watched(|| {
        for kind in KINDS {
            let mut bench = Bench::new(config(1024, 1024, 2, 0), kind);
            let mut turn = limited("Once upon a time there was", 20);
            let mut had = 0;
            for _ in 0..8 {
                let reply = bench.alone(turn.clone());
                assert_eq!(reply.text, hash(&turn), "{kind}");
                assert_eq!(reply.usage.cached_tokens as usize, had, "{kind}");
                // The last token of a reply is not computed.
                had = turn.prompt.len() + 19;
                turn = next_turn(&turn, &reply.text, " And then?");
                bench.assert_idle();
            }
            let stats = bench.engine.stats();
            assert_eq!(stats.prefix_hits, 7);
            assert_eq!(stats.prefix_tokens + stats.computed_tokens, sum_of(&turn));
        }
    });
}

/// Tokens that all the turns before this one had in cells.
fn sum_of(last: &Request) -> u64 {
    let first = limited("Once upon a time there was", 20).prompt.len();
    assert_eq!(last.prompt.len(), first + 8 * 30);
    (0..8).map(|turn| (first + turn * 30 + 19) as u64).sum()
}

#[test]
fn a_system_prompt_is_computed_once_for_all_who_come_at_once() {
    watched(|| {
        for (kind, times) in [("hash", 1), ("window=900;hash", 1), ("whole;hash", 8)] {
            let mut bench = Bench::new(config(600, 4800, 8, 0), kind);
            bench.control.record();
            let system = "You are helpful. ".repeat(30);
            let requests: Vec<Request> = (0..8)
                .map(|n| limited(&format!("{system}{n}?"), 12))
                .collect();
            let ids = bench.submit_held(&requests);
            bench.control.open();
            for (reply, request) in bench.replies(&ids).iter().zip(&requests) {
                assert_eq!(reply.text, hash(request), "{kind}");
            }
            let rows: usize = bench.control.batches().iter().map(Vec::len).sum();
            let whole = requests[0].prompt.len();
            let shared = whole - 3;
            assert_eq!(rows, times * shared + 8 * 3 + 8 * 11, "{kind}");
            bench.assert_idle();
        }
    });
}

#[test]
fn a_cancelled_prompt_is_gone_on_with() {
    watched(|| {
        let mut bench = Bench::new(config(512, 512, 1, 1), "batch=64;hash");
        let long = limited(&"long ".repeat(60), 5);
        bench.control.hold();
        let id = bench.submit(long.clone());
        bench.control.allow(2);
        bench.control.reached(3);
        bench.engine.cancel(id);
        bench.control.open();
        assert_eq!(bench.reply(id).reason, FinishReason::Cancelled);
        let reply = bench.alone(long.clone());
        assert_eq!(reply.text, hash(&long));
        assert_eq!(reply.usage.cached_tokens, 3 * 64);
        bench.assert_idle();
    });
}

#[test]
fn what_is_kept_is_in_nobodys_way() {
    watched(|| {
        let mut bench = Bench::new(config(100, 100, 2, 8), "hash");
        for n in 0..30 {
            let request = limited(&format!("{n}").repeat(20), 40);
            let reply = bench.alone(request.clone());
            assert_eq!((reply.text, reply.usage.pauses), (hash(&request), 0));
            bench.assert_idle();
        }
        assert!(bench.engine.stats().cells_evicted > 1000);
        // All of the pool, for one.
        assert_eq!(bench.alone(request(&"x".repeat(96))).text.len(), 2);
        bench.assert_idle();
    });
}

#[test]
fn shared_cells_stay_where_they_are_when_one_shifts() {
    watched(|| {
        for n_keep in [1, 30, 60, 200] {
            let mut bench = Bench::new(config(128, 512, 4, 4), "hash");
            let alone = |request: &Request| {
                Bench::new(config(128, 128, 1, 0), "hash")
                    .alone(request.clone())
                    .text
            };
            let system = "x".repeat(50);
            let requests: Vec<Request> = (0..8)
                .map(|n| Request {
                    n_keep: if n % 2 == 0 { n_keep } else { 0 },
                    ..limited(&format!("{system}{n}"), 300)
                })
                .collect();
            let ids: Vec<_> = requests
                .iter()
                .map(|request| bench.submit(request.clone()))
                .collect();
            for (reply, request) in bench.replies(&ids).iter().zip(&requests) {
                assert_eq!(reply.text, alone(request), "{n_keep}");
            }
            let stats = bench.engine.stats();
            assert!(stats.shifts > 0 && stats.prefix_hits >= 3);
            bench.assert_idle();
        }
    });
}
