//! Logits and parameters that a model or a user gives once in a blue moon.

use std::sync::Arc;

use llm_engine::model::Token;
use llm_engine::sampler::candidates::Candidates;
use llm_engine::sampler::logits::Logits;
use llm_engine::sampler::{Sampler, SamplingParams, Scratch, min_p, top_k, top_p};

const INF: f32 = f32::INFINITY;
const NAN: f32 = f32::NAN;

fn plain() -> SamplingParams {
    SamplingParams {
        temperature: 1.0,
        penalty_last_n: 64,
        seed: Some(1),
        ..SamplingParams::greedy()
    }
}

/// Parameters that lead through every way of sampling.
fn all_ways() -> Vec<SamplingParams> {
    vec![
        plain(),
        SamplingParams {
            temperature: 0.0,
            ..plain()
        },
        SamplingParams {
            temperature: 1e-30,
            ..plain()
        },
        SamplingParams {
            top_k: 2,
            ..plain()
        },
        SamplingParams {
            top_k: 1000,
            ..plain()
        },
        SamplingParams {
            top_p: 0.9,
            ..plain()
        },
        SamplingParams {
            min_p: 0.1,
            ..plain()
        },
        SamplingParams {
            typical_p: 0.9,
            ..plain()
        },
        SamplingParams {
            tail_free_sampling_z: 0.9,
            ..plain()
        },
        SamplingParams {
            mirostat: 1,
            ..plain()
        },
        SamplingParams {
            mirostat: 2,
            ..plain()
        },
    ]
}

fn sampled(params: &SamplingParams, row: &[f32], banned: &[Token], n: usize) -> Vec<Token> {
    let mut sampler = Sampler::new(params, None, banned.into());
    let mut scratch = Scratch::default();
    (0..n).map(|_| sampler.sample(row, &mut scratch)).collect()
}

#[test]
fn without_a_logit_the_lowest_token_that_is_not_banned() {
    for params in all_ways() {
        for row in [[-INF; 5], [NAN; 5], [NAN, -INF, NAN, -INF, -INF]] {
            assert_eq!(sampled(&params, &row, &[], 3), [0; 3], "{params:?}");
            assert_eq!(sampled(&params, &row, &[1, 0], 3), [2; 3], "{params:?}");
        }
        let row = [1.0, 2.0, 3.0];
        assert_eq!(sampled(&params, &row, &[2, 1, 0], 3), [0; 3], "{params:?}");
    }
}

#[test]
fn nan_is_never_picked() {
    for params in all_ways() {
        let row = [NAN, 1.0, NAN, -INF, NAN];
        assert_eq!(sampled(&params, &row, &[], 20), [1; 20], "{params:?}");
    }
}

#[test]
fn infinity_takes_all() {
    for params in all_ways() {
        let row = [f32::MAX, 3.0, INF, NAN, -INF];
        assert_eq!(sampled(&params, &row, &[], 20), [2; 20], "{params:?}");
    }
    let two = sampled(&plain(), &[1.0, INF, 2.0, INF], &[], 100);
    assert!(two.iter().all(|token| [1, 3].contains(token)));
    assert!(two.contains(&1) && two.contains(&3));
}

#[test]
fn banned_is_never_picked() {
    for params in all_ways() {
        let row = [5.0, 9.0, 4.0, 9.0, 4.5];
        let tokens = sampled(&params, &row, &[3, 1], 50);
        assert!(!tokens.contains(&1) && !tokens.contains(&3), "{params:?}");
    }
}

#[test]
fn one_token_is_a_vocabulary() {
    for params in all_ways() {
        assert_eq!(sampled(&params, &[-3.0], &[], 3), [0; 3], "{params:?}");
    }
}

#[test]
fn zeros_of_both_signs_tie() {
    let row = [-1.0, -0.0, 0.0, -0.0];
    let greedy = SamplingParams {
        temperature: 0.0,
        ..plain()
    };
    assert_eq!(sampled(&greedy, &row, &[], 1), [1]);
    let mut candidates = Candidates::default();
    for k in [0, 3] {
        top_k::top_k(&Logits::new(&row, &[]), k, &mut candidates);
        let ids: Vec<Token> = candidates.items().iter().map(|item| item.id).collect();
        assert_eq!(ids[..3], [1, 2, 3]);
    }
}

#[test]
fn neighbouring_floats_are_told_apart() {
    let mut logit = 1.0_f32;
    let rising: Vec<f32> = std::iter::repeat_with(|| {
        logit = logit.next_up();
        logit
    })
    .take(1000)
    .collect();
    let mut candidates = Candidates::default();
    for n in 3..1000 {
        for k in [1, 3] {
            top_k::top_k(&Logits::new(&rising[..n], &[]), k, &mut candidates);
            let ids = candidates.items().iter().map(|item| item.id as usize);
            assert!(ids.eq((0..n).rev().take(k as usize)), "{k} of {n}");
        }
    }
}

#[test]
fn the_same_seed_draws_the_same() {
    let row: Vec<f32> = (0..100).map(|id| (id % 7) as f32).collect();
    let seeded = |seed| SamplingParams { seed, ..plain() };
    let draws = |seed| sampled(&seeded(seed), &row, &[], 50);
    assert_eq!(draws(Some(5)), draws(Some(5)));
    assert_ne!(draws(Some(5)), draws(Some(6)));
    assert_ne!(draws(None), draws(None));
}

/// A token uses up one random number whatever happens to the others.
#[test]
fn draws_do_not_depend_on_rows_before() {
    let mut scratch = Scratch::default();
    let row: Vec<f32> = (0..100).map(|id| (id % 7) as f32).collect();
    let after = |first: &[f32], scratch: &mut Scratch| {
        let mut sampler = Sampler::new(&plain(), None, Arc::default());
        sampler.sample(first, scratch);
        sampler.sample(&row, scratch)
    };
    let expected = after(&row, &mut scratch);
    for first in [&[1.0][..], &[NAN; 3], &[0.0; 1000]] {
        assert_eq!(after(first, &mut scratch), expected);
    }
}

#[test]
fn a_sum_of_32_bits_meets_its_threshold() {
    // In 32 bits 3 * 0.1 is 0.3; in 64 bits the same numbers stay under it.
    let mut candidates = Candidates::default();
    top_k::top_k(&Logits::new(&[0.5; 10], &[]), 0, &mut candidates);
    top_p::top_p(&mut candidates, 0.3);
    assert_eq!(candidates.len(), 3);
}

#[test]
fn min_p_keeps_what_reaches_its_share() {
    let row = [0.0, 2.0, 1.0, 2.0, -1.0];
    let kept = |least: f32| {
        let mut candidates = Candidates::default();
        top_k::top_k(&Logits::new(&row, &[]), 0, &mut candidates);
        min_p::min_p(&mut candidates, least);
        let ids = candidates.items().iter().map(|item| item.id);
        ids.collect::<Vec<Token>>()
    };
    assert_eq!(kept(0.0), [1, 3, 2, 0, 4]);
    assert_eq!(kept(0.1), [1, 3, 2, 0]);
    assert_eq!(kept(0.3), [1, 3, 2]);
    assert_eq!(kept(1.0), [1, 3]);
    assert_eq!(kept(2.0), [1, 3]);
}

#[test]
fn sequences_can_be_sampled_on_several_threads() {
    fn can_be_sent<T: Send>() {}
    can_be_sent::<Sampler>();
    can_be_sent::<Scratch>();
}
