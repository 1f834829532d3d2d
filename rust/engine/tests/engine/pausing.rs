//! A pool too small for all: some replies are paused, and nobody notices.

use llm_engine::{Error, FinishReason};

use crate::harness::{Bench, Reply, config, limited, request, watched};

fn texts(replies: &[Reply]) -> Vec<&str> {
    replies.iter().map(|reply| reply.text.as_str()).collect()
}

fn prompts() -> Vec<String> {
    (1..=6).map(|n| format!("{n}").repeat(10 * n)).collect()
}

/// What each prompt gets from an engine that has nothing else to do.
fn alone(config: llm_engine::Config, max_tokens: u32) -> Vec<Reply> {
    let mut bench = Bench::new(config, "hash");
    prompts()
        .iter()
        .map(|prompt| bench.alone(limited(prompt, max_tokens)))
        .collect()
}

#[test]
fn paused_and_resumed_text_equals_unpaused() {
    watched(|| {
        let config = config(256, 300, 4, 2);
        let expected = alone(config, 150);
        let mut bench = Bench::new(config, "hash");
        bench.control.hold();
        let ids: Vec<_> = prompts()
            .iter()
            .map(|prompt| bench.submit(limited(prompt, 150)))
            .collect();
        bench.control.open();
        let replies = bench.replies(&ids);
        assert_eq!(texts(&replies), texts(&expected));
        assert!(
            replies
                .iter()
                .all(|reply| reply.reason == FinishReason::Length)
        );
        assert_eq!(replies[0].usage.pauses, 0, "the oldest is never paused");
        let pauses: u32 = replies.iter().map(|reply| reply.usage.pauses).sum();
        assert!(pauses > 0);
        assert_eq!(bench.engine.stats().pauses, u64::from(pauses));
        bench.assert_idle();
    });
}

#[test]
fn a_model_with_less_room_than_it_says_serves_all_the_same() {
    watched(|| {
        let config = config(256, 1024, 4, 2);
        let expected = alone(config, 150);
        let mut bench = Bench::new(config, "room=256;hash");
        let ids: Vec<_> = prompts()
            .iter()
            .map(|prompt| bench.submit(limited(prompt, 150)))
            .collect();
        let replies = bench.replies(&ids);
        assert_eq!(texts(&replies), texts(&expected));
        assert!(bench.engine.stats().pauses > 0);
        bench.assert_idle();
    });
}

#[test]
fn a_request_without_room_even_alone_fails_alone() {
    watched(|| {
        let mut bench = Bench::new(config(256, 256, 2, 1), "room=50;hash");
        let big = bench.submit(request(&"x".repeat(100)));
        let growing = bench.submit(limited("growing", 100));
        let small = bench.submit(limited("small", 20));
        for id in [big, growing] {
            let reason = bench.reply(id).reason;
            assert!(
                matches!(reason, FinishReason::Error(Error::Decode(_))),
                "{reason:?}"
            );
        }
        assert_eq!(bench.reply(small).text.len(), 20);
        bench.assert_idle();
    });
}
