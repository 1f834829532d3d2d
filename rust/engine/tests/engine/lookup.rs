//! Drafts by prompt lookup: the same text in fewer decodes.

use llm_engine::sampler::SamplingParams;
use llm_engine::stop::StopRules;
use llm_engine::{Config, FinishReason, Request};

use crate::harness::{Bench, Reply, config, limited, request, watched};

const TEXT: &str = "the cat sat on the mat and the dog sat on the cat, \
    so the cat sat on the dog and the dog sat on the mat";

/// The same requests with drafts and without.
fn both(config: Config, model: &str, requests: &[Request]) -> [(Vec<Reply>, Bench); 2] {
    [true, false].map(|prompt_lookup| {
        let config = Config {
            prompt_lookup,
            ..config
        };
        let mut bench = Bench::new(config, model);
        let ids = bench.submit_held(requests);
        bench.control.open();
        let replies = bench.replies(&ids);
        bench.assert_idle();
        (replies, bench)
    })
}

/// Asserts that drafts change nothing but the number of decodes; returns how
/// many tokens were drafted and how many of them were right.
fn compare(config: Config, model: &str, requests: &[Request]) -> (u64, u64) {
    let [(replies, with), (expected, without)] = both(config, model, requests);
    for (reply, expected) in replies.iter().zip(&expected) {
        assert_eq!(
            (&reply.text, &reply.reason),
            (&expected.text, &expected.reason)
        );
        let (usage, wanted) = (reply.usage, expected.usage);
        assert_eq!(usage.completion_tokens, wanted.completion_tokens);
    }
    let (with, without) = (with.engine.stats(), without.engine.stats());
    assert_eq!(with.sampled_tokens, without.sampled_tokens);
    assert_eq!((without.drafted_tokens, without.accepted_tokens), (0, 0));
    (with.drafted_tokens, with.accepted_tokens)
}

#[test]
fn a_copy_takes_a_few_decodes() {
    watched(|| {
        let [(replies, with), (_, without)] =
            both(config(512, 512, 1, 0), "echo", &[request(TEXT)]);
        assert_eq!(replies[0].text, TEXT);
        assert_eq!(replies[0].reason, FinishReason::Stop);
        let [with, without] = [with, without].map(|bench| bench.engine.stats());
        assert_eq!(without.decodes as usize, TEXT.len() + 1);
        assert!(4 * with.decodes < without.decodes, "{with:?}");
        assert_eq!(with.sampled_tokens, without.sampled_tokens);
        // Of wrong drafts nothing counts.
        assert_eq!(with.computed_tokens, without.computed_tokens);
    });
}

#[test]
fn limits_and_stop_rules_end_a_reply_inside_a_draft() {
    watched(|| {
        let mut accepted = 0;
        for tokens in 1..TEXT.len() as u32 {
            let config = config(300, 300, 1, 0);
            accepted += compare(config, "echo", &[limited(TEXT, tokens)]).1;
        }
        for stop in [
            "sat on the mat and",
            "dog sat on the m",
            "mat$",
            "ca.*o the",
        ] {
            let request = Request {
                stop: StopRules::compile(&[stop.to_owned()], &[]).unwrap(),
                ..request(TEXT)
            };
            accepted += compare(config(300, 300, 1, 0), "echo", &[request]).1;
        }
        // The context ends in the middle of the copy.
        for context in TEXT.len() as u32 + 4..2 * TEXT.len() as u32 {
            accepted += compare(config(context, context, 1, 0), "echo", &[request(TEXT)]).1;
        }
        assert!(accepted > 1000, "{accepted}");
    });
}

#[test]
fn where_rows_are_dear_drafts_are_long_and_for_one_stream() {
    watched(|| {
        let requests = [request(TEXT)];
        let drafts = both(config(512, 512, 1, 0), "dear;echo", &requests);
        let [with, without] = drafts.map(|(_, bench)| bench.engine.stats());
        assert!(with.accepted_tokens > 60, "{with:?}");
        assert!(4 * with.decodes < without.decodes, "{with:?} {without:?}");
        // Beside another stream there are none.
        let requests = [limited(TEXT, 80), limited(TEXT, 80)];
        assert_eq!(
            compare(config(300, 600, 2, 0), "dear;echo", &requests),
            (0, 0)
        );
    });
}

#[test]
fn draws_are_the_same_for_a_seed() {
    watched(|| {
        let sampling = SamplingParams {
            temperature: 8.0,
            penalty_repetition: 1.02,
            penalty_frequency: 0.5,
            penalty_last_n: 8,
            ..request("").sampling
        };
        let mut drafted = (0, 0);
        for seed in 0..40 {
            let request = Request {
                sampling: SamplingParams {
                    seed: Some(seed),
                    ..sampling.clone()
                },
                ..limited(TEXT, 200)
            };
            let (all, right) = compare(config(512, 512, 1, 0), "refrain", &[request]);
            drafted = (drafted.0 + all, drafted.1 + right);
        }
        assert!(
            drafted.1 > 100 && drafted.0 > drafted.1 + 100,
            "{drafted:?}"
        );
    });
}

#[test]
fn streams_windows_shifts_and_pauses() {
    watched(|| {
        let mut random = fastrand::Rng::with_seed(1);
        let (mut drafted, mut accepted) = (0, 0);
        for run in 0..120 {
            let context = random.u32(40..200);
            let pool = context + random.u32(0..300);
            let parallel = random.u32(1..7);
            let kind = ["", "", "window=9;", "whole;"][run % 4];
            let dear = ["", "dear;"][run / 4 % 2];
            let model = format!("batch={};{kind}{dear}refrain", random.u32(parallel..70));
            let requests: Vec<Request> = (0..random.usize(1..9))
                .map(|_| {
                    let prompt: String = (0..random.usize(1..35))
                        .map(|_| char::from(b'a' + random.u8(0..3)))
                        .collect();
                    Request {
                        n_keep: if kind.is_empty() { random.u32(0..5) } else { 0 },
                        ..limited(&prompt, random.u32(1..300))
                    }
                })
                .collect();
            let (all, right) = compare(config(context, pool, parallel, 9), &model, &requests);
            assert!(all == 0 || kind != "whole;");
            drafted += all;
            accepted += right;
        }
        assert!(
            accepted > 1000 && drafted > accepted + 1000,
            "{accepted} of {drafted}"
        );
    });
}

#[test]
fn a_model_with_less_room_than_it_says_does_without() {
    watched(|| {
        let mut request = request(TEXT);
        request.max_tokens = Some(TEXT.len() as u32);
        let room = request.prompt.len() + TEXT.len();
        let config = config(400, 400, 1, 0);
        compare(config, &format!("room={room};echo"), &[request]);
    });
}

#[test]
fn beside_many_streams_there_are_none() {
    watched(|| {
        let requests: Vec<Request> = (0..8).map(|_| limited(TEXT, 50)).collect();
        let config = config(200, 1600, 8, 0);
        assert_eq!(compare(config, "echo", &requests), (0, 0));
    });
}

#[test]
fn beside_shared_beginnings_shifts_pauses_and_cancels() {
    watched(|| {
        let mut random = fastrand::Rng::with_seed(2);
        let [
            mut hits,
            mut shifts,
            mut pauses,
            mut accepted,
            mut cancelled,
        ] = [0; 5];
        for run in 0..120 {
            let context = random.u32(60..150);
            let pool = context + random.u32(0..300);
            let kind = ["", "", "window=30;"][run % 3];
            let model = format!("batch={};{kind}refrain", random.u32(6..70));
            let parallel = random.u32(1..5);
            let mut bench = Bench::new(config(context, pool, parallel, 9), &model);
            bench.control.record();
            let system = "abcd".repeat(random.usize(5..10));
            let requests: Vec<Request> = (0..9)
                .map(|n| Request {
                    n_keep: if kind.is_empty() {
                        random.u32(0..50)
                    } else {
                        0
                    },
                    ..limited(&format!("{system}{}", n % 3), random.u32(40..300))
                })
                .collect();
            for wave in requests.chunks(5) {
                let before = bench.control.batches().len();
                let ids = bench.submit_held(wave);
                // One is cancelled on its way; all together take more decodes.
                let decodes = random.usize(1..4);
                bench.control.allow(decodes);
                bench.control.reached(before + decodes + 1);
                bench.engine.cancel(ids[random.usize(0..3)]);
                bench.control.open();
                for (reply, request) in bench.replies(&ids).iter().zip(wave) {
                    let alone = Config {
                        prompt_lookup: false,
                        ..config(context, context, 1, 0)
                    };
                    let expected = Bench::new(alone, &model).alone(request.clone());
                    if reply.reason == FinishReason::Cancelled {
                        assert!(expected.text.starts_with(&reply.text), "run {run}");
                        cancelled += u64::from(!reply.text.is_empty());
                    } else {
                        assert_eq!(
                            (&reply.text, &reply.reason),
                            (&expected.text, &expected.reason),
                            "run {run}"
                        );
                    }
                }
                bench.assert_idle();
            }
            let stats = bench.engine.stats();
            hits += stats.prefix_hits;
            shifts += stats.shifts;
            pauses += stats.pauses;
            accepted += stats.accepted_tokens;
        }
        let all = [hits, shifts, pauses, accepted, cancelled];
        assert!(all.iter().all(|&count| count > 10), "{all:?}");
    });
}
