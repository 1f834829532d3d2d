//! Pools that kept texts have filled: blocks, and who gets which.

use llm_engine::{Config, Request};

use crate::harness::{Bench, Reply, config, limited, watched};

const CONTEXT: u32 = 320;

/// Some that begin as others did, one after the other.
fn texts(random: &mut fastrand::Rng) -> Vec<Request> {
    let systems: Vec<String> = (0..3)
        .map(|n| format!("{n} ").repeat(random.usize(10..60)))
        .collect();
    (0..30)
        .map(|n| {
            let system = &systems[random.usize(0..3)];
            let shared = &system[..random.usize(0..=system.len())];
            limited(
                &format!("{shared} {n} {}", random.u32(..)),
                random.u32(1..300),
            )
        })
        .collect()
}

/// Replies to texts that come one after the other.
fn replies(config: Config, model: &str, texts: &[Request]) -> (Vec<Reply>, Bench) {
    let mut bench = Bench::new(config, model);
    let replies = texts.iter().map(|text| bench.alone(text.clone())).collect();
    (replies, bench)
}

#[test]
fn drafts_change_no_order_of_cells() {
    watched(|| {
        let [mut drafted, mut accepted, mut hits] = [0; 3];
        for seed in 0..40 {
            let mut random = fastrand::Rng::with_seed(seed);
            // Half a block is as much as the longest draft and one token.
            let kind = ["block=64;dear;", "block=64;", "block=16;"][random.usize(0..3)];
            let kind =
                [kind, &format!("{kind}window=500;")][usize::from(random.u8(..) < 50)].to_owned();
            let model = format!("batch={};{kind}places", random.u32(20..70));
            let pool = CONTEXT + 64 * random.u32(0..6);
            let with = config(CONTEXT, pool, 1, 0);
            let without = Config {
                prompt_lookup: false,
                ..with
            };
            let texts = texts(&mut random);
            let (said, with) = replies(with, &model, &texts);
            let (expected, without) = replies(without, &model, &texts);
            for (at, (said, expected)) in said.iter().zip(&expected).enumerate() {
                let [said, expected] =
                    [said, expected].map(|reply| (&reply.text, reply.usage.cached_tokens));
                assert_eq!(said, expected, "text {at} of seed {seed}, {model}");
            }
            let [with, without] = [with, without].map(|bench| bench.engine.stats());
            assert!(with.cells_evicted > 0);
            assert_eq!(with.cells_evicted, without.cells_evicted, "seed {seed}");
            assert_eq!(with.cells_cached, without.cells_cached, "seed {seed}");
            drafted += with.drafted_tokens;
            accepted += with.accepted_tokens;
            hits += with.prefix_hits;
        }
        assert!(
            accepted > 1000 && drafted > accepted + 1000 && hits > 100,
            "{accepted} of {drafted}, {hits}"
        );
    });
}

#[test]
fn cells_are_scattered_only_where_nothing_kept_is_left() {
    watched(|| {
        for seed in 0..40 {
            let mut random = fastrand::Rng::with_seed(seed);
            let parallel = random.u32(1..5);
            // Those who share a beginning leave a part of a block unused.
            let pool = parallel * (CONTEXT + 192);
            let mut bench = Bench::new(
                config(CONTEXT, pool, parallel, 40),
                "block=64;batch=70;refrain",
            );
            let texts = texts(&mut random);
            for wave in texts.chunks(2 * parallel as usize) {
                let ids: Vec<_> = wave.iter().map(|text| bench.submit(text.clone())).collect();
                bench.replies(&ids);
            }
            assert!(bench.engine.stats().cells_evicted > 0);
            assert_eq!(bench.control.scattered_cells(), 0, "seed {seed}");
        }
    });
}
