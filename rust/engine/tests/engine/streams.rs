//! Many replies at once, and what reaches their readers.

use llm_engine::stop::StopRules;
use llm_engine::{FinishReason, Request};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::harness::{Bench, config, limited, request, watched};

#[test]
fn thirty_two_at_once_and_none_mixed_up() {
    watched(|| {
        let mut bench = Bench::new(config(1024, 1600, 4, 28), "batch=64;echo");
        let prompts: Vec<String> = (0..32)
            .map(|n| format!("{n}: {}", "çà et là ".repeat(n)))
            .collect();
        let ids: Vec<_> = prompts
            .iter()
            .map(|prompt| bench.submit(request(prompt)))
            .collect();
        for (reply, prompt) in bench.replies(&ids).iter().zip(&prompts) {
            assert_eq!(&reply.text, prompt);
            assert_eq!(reply.reason, FinishReason::Stop);
            assert_eq!(reply.usage.prompt_tokens as usize, prompt.len() + 2);
            assert_eq!(reply.usage.completion_tokens as usize, prompt.len());
        }
        bench.assert_idle();
        let stats = bench.engine.stats();
        assert_eq!((stats.completed, stats.failed, stats.cancelled), (32, 0, 0));
    });
}

#[test]
fn a_long_prompt_does_not_stop_a_stream() {
    watched(|| {
        let mut bench = Bench::new(config(1024, 2048, 4, 0), "hash");
        bench.control.record();
        bench.control.hold();
        let stream = bench.submit(limited("stream", 40));
        bench.control.reached(1);
        let long = bench.submit(limited(&"long ".repeat(160), 3));
        bench.control.open();
        bench.replies(&[stream, long]);
        let batches = bench.control.batches();
        let of_long =
            |batch: &[llm_engine::model::Row]| batch.iter().filter(|row| row.sequence == 1).count();
        let pieces: Vec<usize> = batches
            .iter()
            .map(|batch| of_long(batch))
            .filter(|&rows| rows > 1)
            .collect();
        assert_eq!(pieces, [128, 128, 128, 128, 128, 128, 34]);
        for batch in &batches[1..40] {
            let at = batch.iter().position(|row| row.sequence == 0 && row.logits);
            // A prompt's rows come first: attention cuts them as it would
            // without the stream.
            let prompt = Some(of_long(batch)).filter(|&rows| rows > 1);
            assert_eq!(at, Some(prompt.unwrap_or(0)));
        }
    });
}

#[test]
fn a_slow_reader_finds_one_delta_and_the_end() {
    watched(|| {
        let mut bench = Bench::new(config(256, 1024, 4, 0), "hash");
        let ids: Vec<_> = (0..4)
            .map(|n| bench.submit(limited(&n.to_string(), 50)))
            .collect();
        while bench.engine.stats().completed < 4 {
            std::thread::yield_now();
        }
        // The counters come just before the events; this waits for both.
        bench.engine.close();
        assert_eq!(bench.drain(), 8);
        let replies = bench.replies(&ids);
        assert!(replies.iter().all(|reply| reply.text.len() == 50));
        assert!(!bench.engine.wait(std::time::Duration::ZERO));
    });
}

#[test]
fn the_bell_is_readable_while_there_is_something_to_drain() {
    watched(|| {
        let mut bench = Bench::new(config(64, 64, 1, 4), "text:hello");
        let rings = |bench: &Bench, wait: i64| {
            // SAFETY: the descriptor is open as long as the engine.
            let bell = unsafe { BorrowedFd::borrow_raw(bench.engine.bell()) };
            let mut polled = [PollFd::new(&bell, PollFlags::IN)];
            let timeout = Timespec {
                tv_sec: wait,
                tv_nsec: 0,
            };
            poll(&mut polled, Some(&timeout)).expect("a poll of an open descriptor") > 0
        };
        for _ in 0..3 {
            assert!(!rings(&bench, 0));
            let id = bench.submit(request("x"));
            assert!(rings(&bench, 20));
            assert!(rings(&bench, 0), "it rings until the drain");
            assert_eq!(bench.reply(id).text, "hello");
        }
    });
}

#[test]
fn leading_white_space_is_dropped_before_the_stop_rules_look() {
    watched(|| {
        let mut bench = Bench::new(config(64, 64, 1, 0), "text: \n\u{e9}t\u{e9}");
        assert_eq!(bench.alone(request("x")).text, "été");
        let stop = StopRules::compile(&["^t".into()], &[]).unwrap();
        let reply = bench.alone(Request {
            stop,
            ..request("x")
        });
        assert_eq!(
            (reply.text.as_str(), reply.reason),
            ("été", FinishReason::Stop)
        );
        let stop = StopRules::compile(&["^é".into()], &[]).unwrap();
        let reply = bench.alone(Request {
            stop,
            ..request("x")
        });
        assert_eq!(
            (reply.text.as_str(), reply.reason),
            ("", FinishReason::StopRegex)
        );
    });
}

#[test]
fn a_stop_rule_ends_the_reply_before_its_match() {
    watched(|| {
        let mut bench = Bench::new(config(64, 64, 1, 0), "text:Hello, world!");
        let stopped = |rules: StopRules| Request {
            stop: rules,
            ..request("x")
        };
        let reply = bench.alone(stopped(StopRules::compile(&["w.r".into()], &[]).unwrap()));
        assert_eq!(
            (reply.text.as_str(), reply.reason),
            ("Hello, ", FinishReason::StopRegex)
        );
        assert_eq!(reply.usage.completion_tokens, 10);
        bench.assert_idle();
        let never = StopRules::compile(&[], &["world!?".into()]).unwrap();
        let reply = bench.alone(stopped(never.clone()));
        assert_eq!(
            (reply.text.as_str(), reply.reason),
            ("Hello, world!", FinishReason::Stop)
        );
        let reply = bench.alone(Request {
            max_tokens: Some(9),
            ..stopped(never)
        });
        assert_eq!(
            (reply.text.as_str(), reply.reason),
            ("Hello, wo", FinishReason::Length)
        );
    });
}

#[test]
fn the_sampler_sees_the_prompt_and_the_reply() {
    watched(|| {
        let mut bench = Bench::new(config(64, 64, 1, 0), "text:aaa");
        let penalised = |prompt| {
            let mut request = request(prompt);
            request.sampling.penalty_presence = 50.0;
            request.sampling.penalty_last_n = 64;
            request
        };
        // The second choice wins over a token seen before, unless it was seen
        // as well.
        assert_eq!(bench.alone(penalised("x")).text, "a.a");
        assert_eq!(bench.alone(penalised("a")).text, ".aa");
    });
}

#[test]
fn what_was_done_is_measured() {
    watched(|| {
        let mut bench = Bench::new(config(256, 512, 2, 8), "batch=64;delay=1ms;hash");
        let ids: Vec<_> = (0..5)
            .map(|n| bench.submit(limited(&"p".repeat(70 + n), 4)))
            .collect();
        let replies = bench.replies(&ids);
        let (stats, measures) = (bench.engine.stats(), bench.engine.measures());
        let prompts: u64 = replies
            .iter()
            .map(|r| u64::from(r.usage.prompt_tokens - r.usage.cached_tokens))
            .sum();
        assert_eq!(measures.prompt_tokens, prompts);
        assert_eq!(
            stats.computed_tokens,
            prompts + 5 * 3,
            "the last is not computed"
        );
        assert_eq!(measures.first_token.count, 5);
        assert_eq!(measures.between_tokens.count, 5 * 3);
        assert!(measures.busy > stats.decodes && measures.busy <= 2 * stats.decodes);
        let time = measures.prompt_time + measures.reply_time;
        assert!(time >= Duration::from_millis(stats.decodes));
        let first: Duration = replies
            .iter()
            .map(|reply| reply.usage.queue_time + reply.usage.prefill_time)
            .sum();
        assert!(first.abs_diff(measures.first_token.sum) < Duration::from_millis(1));
        let (_, below) = measures.between_tokens.cumulative().next().unwrap();
        assert_eq!(below, 0, "none takes less than a millisecond");
    });
}
