//! The cost of one token, without a model.
//!
//! `scan` is the least any sampler can cost: one look at each logit. Rows
//! take turns, as those of a batch do, so they do not all stay in the nearest
//! cache.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use llm_engine::model::Token;
use llm_engine::sampler::logits::Logits;
use llm_engine::sampler::{Sampler, SamplingParams, Scratch};

const ROWS: usize = 8;
const HISTORY: usize = 64;
const VOCABULARIES: [usize; 2] = [49_152, 262_144];

fn default_chain() -> SamplingParams {
    SamplingParams {
        temperature: 0.8,
        top_k: 40,
        top_p: 0.2,
        min_p: 0.0,
        typical_p: 1.0,
        tail_free_sampling_z: 1.0,
        penalty_repetition: 1.1,
        penalty_frequency: 0.1,
        penalty_presence: 0.0,
        penalty_last_n: HISTORY as i32,
        mirostat: 0,
        mirostat_tau: 5.0,
        mirostat_eta: 0.1,
        seed: Some(1),
    }
}

fn samplers() -> [(&'static str, SamplingParams); 6] {
    let chain = default_chain;
    let all = || SamplingParams {
        top_k: 0,
        top_p: 1.0,
        ..chain()
    };
    [
        (
            "greedy",
            SamplingParams {
                temperature: 0.0,
                ..chain()
            },
        ),
        ("default", chain()),
        (
            "mirostat 2",
            SamplingParams {
                mirostat: 2,
                ..chain()
            },
        ),
        (
            "top-p 0.95 alone",
            SamplingParams {
                top_p: 0.95,
                ..all()
            },
        ),
        (
            "min-p 0.05 alone",
            SamplingParams {
                min_p: 0.05,
                ..all()
            },
        ),
        ("temperature alone", all()),
    ]
}

/// Logits as models have them: a bell curve, which has 1 or 2% of the
/// probability, and a few likely tokens.
fn row(n_vocab: usize, rng: &mut fastrand::Rng) -> Vec<f32> {
    let mut row: Vec<f32> = (0..n_vocab)
        .map(|_| (0..12).map(|_| rng.f32()).sum::<f32>() * 2.0 - 12.0)
        .collect();
    for rank in 0..50 {
        row[rng.usize(..n_vocab)] = 18.0 - 2.0 * (rank as f32).ln_1p();
    }
    row
}

fn sample(criterion: &mut Criterion) {
    for n_vocab in VOCABULARIES {
        let mut rng = fastrand::Rng::with_seed(1);
        let rows: Vec<_> = (0..ROWS).map(|_| row(n_vocab, &mut rng)).collect();
        let mut group = criterion.benchmark_group("sample");
        group.bench_function(BenchmarkId::new("scan", n_vocab), |bencher| {
            let mut turns = rows.iter().cycle();
            bencher.iter(|| {
                turns
                    .next()
                    .map(|row| Logits::new(black_box(row), &[]).max())
            });
        });
        for (name, params) in samplers() {
            let mut sampler = Sampler::new(&params, Some(13), Arc::default());
            for _ in 0..HISTORY {
                sampler.accept(rng.usize(..n_vocab) as Token);
            }
            let mut scratch = Scratch::default();
            group.bench_function(BenchmarkId::new(name, n_vocab), |bencher| {
                let mut turns = rows.iter().cycle();
                bencher.iter(|| {
                    // What is picked is not accepted: on rows that come again
                    // and again, that would flatten them out.
                    sampler.accept(rng.usize(..n_vocab) as Token);
                    let row = turns.next().map_or(&[][..], Vec::as_slice);
                    sampler.sample(black_box(row), &mut scratch)
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, sample);
criterion_main!(benches);
