//! Limits of a request and of the engine.

use std::time::Duration;

use llm_engine::model::fake::FakeLoader;
use llm_engine::{Engine, Error, FinishReason, Request};

use crate::harness::{Bench, config, limited, request, watched};

#[test]
fn the_reply_ends_where_the_context_or_the_limit_does() {
    watched(|| {
        let mut bench = Bench::new(config(32, 32, 1, 0), "hash");
        let reply = bench.alone(request("12345678"));
        assert_eq!(reply.reason, FinishReason::Length);
        assert_eq!(
            (reply.usage.prompt_tokens, reply.usage.completion_tokens),
            (10, 22)
        );
        let reply = bench.alone(limited("12345678", 22));
        assert_eq!((reply.text.len(), reply.reason), (22, FinishReason::Length));
        let reply = bench.alone(limited("12345678", 1));
        assert_eq!((reply.text.len(), reply.reason), (1, FinishReason::Length));
        let longest = bench.alone(request(&"x".repeat(29)));
        assert_eq!(
            (longest.text.len(), longest.reason),
            (1, FinishReason::Length)
        );
        bench.assert_idle();
    });
}

#[test]
fn what_cannot_be_served_is_refused_at_once() {
    watched(|| {
        let bench = Bench::new(config(32, 32, 1, 0), "no-shift;hash");
        let prompt = request(&"x".repeat(30));
        assert_eq!(
            bench.refused(prompt),
            Error::PromptTooLong {
                tokens: 32,
                context: 32
            }
        );
        let empty = Request {
            prompt: Vec::new(),
            ..request("")
        };
        assert_eq!(bench.refused(empty), Error::PromptEmpty);
        let shifting = Request {
            n_keep: 1,
            ..request("x")
        };
        assert!(matches!(bench.refused(shifting), Error::Unsupported(_)));
        bench.assert_idle();
    });
}

#[test]
fn the_queue_is_bounded_and_first_come_first_served() {
    watched(|| {
        let mut bench = Bench::new(config(64, 256, 2, 3), "text:ok");
        bench.control.record();
        bench.control.hold();
        let ids: Vec<_> = (b'1'..=b'5')
            .map(|name| bench.submit(request(&char::from(name).to_string())))
            .collect();
        assert_eq!(bench.refused(request("x")), Error::QueueFull { queue: 3 });
        bench.control.reached(1);
        bench.control.open();
        let replies = bench.replies(&ids);
        assert!(replies.iter().all(|reply| reply.text == "ok"));
        let rows = bench.control.batches().concat();
        // The token after BOS is its prompt's name.
        let started = rows
            .iter()
            .filter(|row| row.position == 1)
            .map(|row| row.token);
        assert!(started.eq(i32::from(b'1')..=i32::from(b'5')));
        bench.alone(request("there is room again"));
    });
}

#[test]
fn an_ignored_end_of_generation_is_never_sampled() {
    watched(|| {
        let mut bench = Bench::new(config(64, 64, 1, 0), "text:ab");
        let reply = bench.alone(Request {
            ignore_eos: true,
            ..limited("x", 5)
        });
        assert_eq!(
            (reply.text.as_str(), reply.reason),
            ("ab...", FinishReason::Length)
        );
    });
}

#[test]
fn time_runs_out_in_the_queue_and_in_the_reply() {
    watched(|| {
        let mut bench = Bench::new(config(64, 64, 1, 1), "hash");
        let time = |max_time| Request {
            max_time: Some(max_time),
            n_keep: 1,
            ..request("x")
        };
        bench.control.hold();
        let running = bench.submit(time(Duration::from_millis(100)));
        bench.control.reached(1);
        let waiting = bench.submit(time(Duration::ZERO));
        bench.control.open();
        let waiting = bench.reply(waiting);
        assert_eq!(
            (waiting.text.as_str(), waiting.reason),
            ("", FinishReason::Length)
        );
        let usage = waiting.usage;
        assert_eq!(
            (usage.completion_tokens, usage.prefill_time),
            (0, Duration::ZERO)
        );
        let running = bench.reply(running);
        assert_eq!(running.reason, FinishReason::Length);
        assert!(!running.text.is_empty());
        let usage = running.usage;
        let total = usage.queue_time + usage.prefill_time + usage.decode_time;
        assert!(total >= Duration::from_millis(100), "{total:?}");
        bench.assert_idle();
    });
}

#[test]
fn sizes_that_do_not_fit_together_do_not_start() {
    watched(|| {
        let start = |config, cells, sequences| {
            Engine::start(
                config,
                FakeLoader::new("batch=4;echo".parse().unwrap(), cells, sequences),
            )
        };
        let unsupported = |started: Result<Engine, Error>| {
            assert!(matches!(started.err(), Some(Error::Unsupported(_))));
        };
        unsupported(start(config(64, 32, 1, 0), 64, 4));
        unsupported(start(config(64, 64, 1, 0), 32, 4));
        unsupported(start(config(64, 64, 5, 0), 64, 4));
        unsupported(start(config(64, 64, 5, 0), 64, 8));
        unsupported(start(config(64, 64, 0, 0), 64, 4));
        unsupported(start(config(1, 64, 1, 0), 64, 4));
        assert!(start(config(64, 64, 4, 0), 64, 4).is_ok());
    });
}
