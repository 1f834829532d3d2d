//! Context shift, against a reference that knows nothing of cells.

use llm_engine::model::Token;
use llm_engine::model::fake::Script;
use llm_engine::{FinishReason, Request};

use crate::harness::{Bench, config, limited, watched};

/// The text of the `hash` script when half of what is behind `keep` tokens is
/// dropped each time the context is full.
fn reference(request: &Request, context: usize, keep: usize) -> String {
    let mut tokens: Vec<Token> = request.prompt.clone();
    let mut text = String::new();
    for _ in 0..request.max_tokens.unwrap() {
        let [token, _] = Script::Hash.next(&tokens, &[]);
        text.push(token as u8 as char);
        tokens.push(token);
        if tokens.len() == context {
            let dropped = (context - keep) / 2;
            tokens.drain(keep..keep + dropped);
        }
    }
    text
}

#[test]
fn the_beginning_is_kept_and_half_of_the_rest_dropped() {
    watched(|| {
        let mut bench = Bench::new(config(32, 32, 1, 0), "hash");
        // Kept as asked; at most the prompt; always room to go on.
        for (prompt, n_keep, keep) in [
            ("0123456789", 1, 1),
            ("0123456789", 5, 5),
            ("01", 1000, 4),
            (&*"x".repeat(29), 99, 28),
        ] {
            let request = Request {
                n_keep,
                ..limited(prompt, 300)
            };
            let reply = bench.alone(request.clone());
            assert_eq!(reply.text, reference(&request, 32, keep), "n_keep {n_keep}");
            assert_eq!(reply.reason, FinishReason::Length);
            assert_eq!(reply.usage.completion_tokens, 300);
            bench.assert_idle();
        }
        assert!(bench.engine.stats().shifts > 0);
    });
}

#[test]
fn a_paused_reply_resumes_from_its_shifted_tokens() {
    watched(|| {
        let mut bench = Bench::new(config(100, 220, 4, 0), "hash");
        let requests: Vec<Request> = (0..4)
            .map(|n| Request {
                n_keep: 3,
                ..limited(&"abcd"[n..].repeat(n + 1), 400)
            })
            .collect();
        let ids = bench.submit_held(&requests);
        bench.control.open();
        for (reply, request) in bench.replies(&ids).iter().zip(&requests) {
            assert_eq!(reply.text, reference(request, 100, 3));
        }
        let stats = bench.engine.stats();
        assert!(stats.shifts > 0 && stats.pauses > 0);
        bench.assert_idle();
    });
}

#[test]
fn tiny_contexts_end_or_go_on_but_never_hang() {
    watched(|| {
        for context in 2..8 {
            let mut bench = Bench::new(config(context, context, 1, 0), "hash");
            // BOS and the end of the prompt take two tokens.
            let prompt = Request {
                prompt: vec![97],
                n_keep: 5,
                ..limited("", 50)
            };
            let reply = bench.alone(prompt);
            let expected = if context == 2 { 1 } else { 50 };
            assert_eq!((context, reply.text.len()), (context, expected));
        }
    });
}
