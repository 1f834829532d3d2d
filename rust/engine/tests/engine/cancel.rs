//! A cancel takes effect before the next step, wherever the request is.

use llm_engine::{Error, FinishReason};

use crate::harness::{Bench, config, limited, request, watched};

#[test]
fn in_the_queue() {
    watched(|| {
        let mut bench = Bench::new(config(64, 64, 1, 2), "text:whole");
        bench.control.hold();
        let running = bench.submit(request("a"));
        bench.control.reached(1);
        let waiting = bench.submit(request("b"));
        let last = bench.submit(request("c"));
        bench.engine.cancel(waiting);
        bench.control.allow(1);
        let reply = bench.reply(waiting);
        assert_eq!(
            (reply.text.as_str(), reply.reason),
            ("", FinishReason::Cancelled)
        );
        assert_eq!(reply.usage.completion_tokens, 0);
        bench.control.open();
        assert_eq!(bench.reply(running).text, "whole");
        assert_eq!(bench.reply(last).text, "whole");
        assert_eq!(bench.engine.stats().cancelled, 1);
        bench.assert_idle();
    });
}

#[test]
fn between_prompt_pieces_and_between_tokens_the_cells_are_back_before_the_next_step() {
    watched(|| {
        // The decode during which the cancel comes. The first is the other's
        // prompt; the victim's has 302 tokens in pieces of 63.
        for decodes in [2, 3, 6, 7, 9] {
            let mut bench = Bench::new(config(512, 1024, 2, 0), "batch=64;hash");
            bench.control.record();
            bench.control.hold();
            let other = bench.submit(limited("other", 20));
            bench.control.reached(1);
            let victim = bench.submit(request(&"v".repeat(300)));
            for decode in 1..=decodes {
                bench.control.reached(decode);
                if decode < decodes {
                    bench.control.allow(1);
                }
            }
            bench.engine.cancel(victim);
            bench.control.allow(1);
            bench.control.reached(decodes + 1);
            // The prompt of the other, and what it has generated.
            let stats = bench.engine.stats();
            let cached = stats.cells_cached;
            assert_eq!(bench.control.used_cells() - cached, 7 + decodes - 1);
            assert_eq!(stats.running, 1);
            let batches = bench.control.batches();
            assert!(batches[decodes].iter().all(|row| row.sequence == 0));
            assert!(batches[decodes - 1].iter().any(|row| row.sequence == 1));
            // The end does not wait for the decode either.
            assert_eq!(bench.reply(victim).reason, FinishReason::Cancelled);
            bench.control.open();
            assert_eq!(bench.reply(other).text.len(), 20);
            bench.assert_idle();
        }
    });
}

#[test]
fn twice_or_too_late_or_of_nobody_changes_nothing() {
    watched(|| {
        let mut bench = Bench::new(config(64, 64, 1, 1), "text:whole");
        bench.engine.cancel(1);
        bench.engine.cancel(77);
        let first = bench.alone(request("a"));
        assert_eq!(
            first.reason,
            FinishReason::Stop,
            "a cancel from before the request"
        );
        bench.control.hold();
        let id = bench.submit(request("b"));
        bench.engine.cancel(id);
        bench.engine.cancel(id);
        bench.control.open();
        assert_eq!(bench.reply(id).reason, FinishReason::Cancelled);
        bench.engine.cancel(id);
        assert_eq!(bench.alone(request("c")).text, "whole");
        assert_eq!(bench.engine.stats().cancelled, 1);
        bench.assert_idle();
    });
}

#[test]
fn closing_cancels_everything() {
    watched(|| {
        let mut bench = Bench::new(config(64, 128, 2, 4), "delay=1ms;hash");
        let mut ids: Vec<_> = (0..2).map(|_| bench.submit(limited("x", 10))).collect();
        bench.replies(&ids);
        ids = (0..6).map(|_| bench.submit(request("endless"))).collect();
        bench.engine.close();
        bench.engine.close();
        for reply in bench.replies(&ids) {
            assert_eq!(reply.reason, FinishReason::Cancelled);
        }
        assert_eq!(bench.refused(request("late")), Error::Closed);
        bench.engine.cancel(ids[0]);
        assert_eq!(bench.engine.stats().running, 0);
        assert_eq!(bench.engine.stats().waiting, 0);
    });
}
