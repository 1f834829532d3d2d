//! The samplers, with all their short cuts, against a slow and obvious
//! reference: a copy of the row, sorted as a whole, in 64 bits.

mod reference;

use std::collections::HashMap;

use llm_engine::model::Token;
use llm_engine::sampler::candidates::Candidates;
use llm_engine::sampler::logits::Logits;
use llm_engine::sampler::mirostat::Mirostat;
use llm_engine::sampler::rng::SplitMix64;
use llm_engine::sampler::{Sampler, SamplingParams, Scratch, chain};
use reference::Reference;

/// A cut this close to its threshold may fall differently in 32 bits.
const MARGIN: f64 = 1e-4;

/// Random cases, the same ones in every run.
struct Cases {
    rng: SplitMix64,
}

impl Cases {
    fn below(&mut self, n: usize) -> usize {
        (self.rng.next_u64() % n as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.rng.uniform() as f32).sum::<f32>() - 6.0
    }

    /// Rows of all kinds: smooth, steep, with ties, with gaps, short and long.
    fn row(&mut self) -> Vec<f32> {
        let n = self.one_of(&[1, 2, 3, 4, 7, 40, 63, 64, 65, 100, 101, 130, 500, 3000]);
        let spread = self.one_of(&[0.1, 1.0, 3.0, 10.0]);
        let step = self.one_of(&[0.0, 0.0, 0.0, 0.5]);
        let holes = self.one_of(&[0, 0, 2, 30]);
        let mut row: Vec<f32> = (0..n).map(|_| self.normal() * spread).collect();
        for logit in &mut row {
            if step > 0.0 {
                *logit = (*logit / step).round() * step;
            }
            if holes > 0 && self.below(holes) == 0 {
                *logit = self.one_of(&[f32::NEG_INFINITY, f32::NAN]);
            }
        }
        row
    }

    fn params(&mut self) -> SamplingParams {
        SamplingParams {
            temperature: self.one_of(&[0.3, 0.8, 1.0, 2.0]),
            top_k: self.one_of(&[-1, 0, 0, 1, 5, 40, 64, 100, 5000]),
            top_p: self.one_of(&[0.0, 0.2, 0.9, 0.99, 1.0, 1.0]),
            min_p: self.one_of(&[0.0, 0.0, 0.01, 0.2]),
            typical_p: self.one_of(&[1.0, 1.0, 1.0, 0.5, 0.9]),
            tail_free_sampling_z: self.one_of(&[1.0, 1.0, 1.0, 0.5, 0.95]),
            penalty_repetition: self.one_of(&[1.0, 1.1, 1.5]),
            penalty_frequency: self.one_of(&[0.0, 0.1]),
            penalty_presence: self.one_of(&[0.0, 0.7]),
            penalty_last_n: self.one_of(&[-1, 0, 1, 3, 64]),
            mirostat: 0,
            mirostat_tau: self.one_of(&[0.5, 3.0, 5.0]),
            mirostat_eta: 0.1,
            seed: Some(self.rng.next_u64()),
        }
    }
}

fn cases() -> Cases {
    Cases {
        rng: SplitMix64::new(7),
    }
}

/// With NaN as minus infinity, and one zero only.
fn in_64_bits(row: &[f32]) -> Vec<f64> {
    row.iter()
        .map(|&logit| match logit {
            logit if logit.is_nan() => f64::NEG_INFINITY,
            logit => f64::from(logit) + 0.0,
        })
        .collect()
}

/// Tells whether the sets are the same, unless rounding may have decided.
fn compare(got: &mut Candidates, want: &Reference, what: &dyn Fn() -> String) -> bool {
    if want.margin < MARGIN {
        return false;
    }
    got.sort();
    // Short cuts may drop the impossible.
    let possible = got.items().iter().filter(|item| item.p > 1e-30);
    let got: Vec<(Token, f32)> = possible.map(|item| (item.id, item.p)).collect();
    let possible = want.kept.iter().filter(|item| item.2 as f32 > 1e-30);
    let want: Vec<(Token, f64)> = possible.map(|item| (item.0, item.2)).collect();
    let ids = |set: &[(Token, f32)]| set.iter().map(|item| item.0).collect::<Vec<_>>();
    let want_ids: Vec<Token> = want.iter().map(|item| item.0).collect();
    assert_eq!(ids(&got), want_ids, "{}", what());
    for (&(id, p), &(_, want)) in got.iter().zip(&want) {
        let close = (f64::from(p) - want).abs() <= 1e-6 + 1e-4 * want;
        assert!(close, "p of {id} is {p}, not {want}: {}", what());
    }
    true
}

fn has_a_choice(row: &[f32]) -> bool {
    row.iter().any(|&logit| logit > f32::NEG_INFINITY)
}

#[test]
fn chain_is_as_the_reference() {
    let mut cases = cases();
    let mut candidates = Candidates::default();
    let mut compared = 0;
    for _ in 0..6000 {
        let (row, params) = (cases.row(), cases.params());
        if !has_a_choice(&row) {
            continue;
        }
        let logits = Logits::new(&row, &[]);
        let want = Reference::chain(&in_64_bits(&row), &params);
        chain::distribution(&params, &logits, 1.0, &mut candidates);
        let what = || format!("{params:?} {row:?}");
        if !compare(&mut candidates, &want, &what) {
            continue;
        }
        compared += 1;
        for _ in 0..4 {
            let u = cases.rng.uniform();
            let (token, _, margin) = want.draw(u);
            if margin > MARGIN {
                let got = chain::pick(&params, &logits, u, &mut candidates);
                assert_eq!(got, Some(token), "u = {u}: {}", what());
            }
        }
    }
    assert!(compared > 4500, "only {compared} cases were clear");
}

/// Each candidate is as likely as its probability: the middle of its stretch
/// picks it, and so do both ends.
#[test]
fn draws_have_the_probabilities_of_the_reference() {
    let mut cases = cases();
    let mut candidates = Candidates::default();
    let mut drawn = 0;
    for _ in 0..1000 {
        let (row, params) = (cases.row(), cases.params());
        let want = Reference::chain(&in_64_bits(&row), &params);
        if !has_a_choice(&row) || want.margin < MARGIN {
            continue;
        }
        let logits = Logits::new(&row, &[]);
        let mut from = 0.0;
        for &(token, _, p) in want.kept.iter().take(60) {
            if p > 1e-4 {
                for part in [0.05, 0.5, 0.95] {
                    let u = from + part * p;
                    let got = chain::pick(&params, &logits, u, &mut candidates);
                    assert_eq!(got, Some(token), "u = {u}: {params:?} {row:?}");
                    drawn += 1;
                }
            }
            from += p;
        }
    }
    assert!(drawn > 5000, "only {drawn} draws");
}

#[test]
fn mirostat_is_as_the_reference() {
    let mut cases = cases();
    let mut candidates = Candidates::default();
    let mut compared = 0;
    for i in 0..3000u32 {
        let params = SamplingParams {
            mirostat: if i % 2 == 0 { 1 } else { 2 },
            ..cases.params()
        };
        let mut mirostat = Mirostat::new(&params).expect("it is on");
        for _ in 0..3 {
            let row = cases.row();
            // Of slopes that are infinite or NaN, there are recorded cases.
            if !row.iter().all(|logit| logit.is_finite()) {
                continue;
            }
            let logits = Logits::new(&row, &[]);
            let want = Reference::mirostat(&in_64_bits(&row), &params, mirostat.mu.into());
            mirostat.keep(&logits, params.temperature, 1.0, &mut candidates);
            let what = || format!("{mirostat:?} {params:?} {row:?}");
            compared += usize::from(compare(&mut candidates, &want, &what));

            let u = cases.rng.uniform();
            let (token, p, margin) = want.draw(u);
            if margin > MARGIN {
                let before = f64::from(mirostat.mu);
                let got = mirostat.pick(&logits, params.temperature, u, &mut candidates);
                assert_eq!(got, Some(token), "u = {u}: {params:?} {row:?}");
                let error = -p.log2() - f64::from(params.mirostat_tau);
                let mu = before - f64::from(params.mirostat_eta) * error;
                assert!((f64::from(mirostat.mu) - mu).abs() < 1e-3);
            }
        }
    }
    assert!(compared > 3000, "only {compared} steps were clear");
}

/// The whole of [`Sampler`]: history, newline, bans, seed, greedy.
#[test]
fn sampler_is_as_the_reference() {
    let mut cases = cases();
    let mut scratch = Scratch::default();
    let mut compared = 0;
    for _ in 0..1500 {
        let mut params = cases.params();
        if cases.below(4) == 0 {
            params.temperature = 0.0;
        }
        let newline = cases.one_of(&[None, Some(0), Some(3)]);
        let banned = cases.one_of(&[&[][..], &[1], &[5, 2, 5, 9999]]);
        let mut sampler = Sampler::new(&params, newline, banned.into());
        let mut rng = SplitMix64::new(params.seed.expect("it has one"));
        let mut history = Vec::new();
        for _ in 0..5 {
            for _ in 0..cases.below(40) {
                let token = cases.below(80) as Token - 2;
                history.push(token);
                sampler.accept(token);
            }
            let row = cases.row();
            let adjusted = adjust(&row, &history, &params, newline, banned);
            let u = (params.temperature > 0.0).then(|| rng.uniform());
            let got = sampler.sample(&row, &mut scratch);
            let best = adjusted.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let n_vocab = row.len() as Token;
            let want = if best == f64::NEG_INFINITY {
                (0..n_vocab).find(|id| !banned.contains(id)).unwrap_or(0)
            } else if let Some(u) = u {
                let (token, _, margin) = Reference::chain(&adjusted, &params).draw(u);
                if margin < MARGIN {
                    continue;
                }
                token
            } else {
                let reference = Reference::new(&adjusted);
                reference.kept[0].0
            };
            compared += 1;
            assert_eq!(got, want, "{u:?} {params:?} {history:?} {row:?}");
        }
    }
    assert!(compared > 5000, "only {compared} tokens were clear");
}

/// Penalties and bans on a copy of the row; in 32 bits, as ties depend on it.
fn adjust(
    row: &[f32],
    history: &[Token],
    params: &SamplingParams,
    newline: Option<Token>,
    banned: &[Token],
) -> Vec<f64> {
    let window = usize::try_from(params.penalty_last_n).unwrap_or(usize::MAX);
    let mut counts: HashMap<Token, u32> = HashMap::new();
    for &token in history.iter().rev().take(window) {
        *counts.entry(token).or_default() += 1;
    }
    let mut adjusted = row.to_vec();
    for (id, logit) in (0..).zip(&mut adjusted) {
        if let Some(&count) = counts.get(&id)
            && newline != Some(id)
        {
            if *logit > 0.0 {
                *logit /= params.penalty_repetition;
            } else {
                *logit *= params.penalty_repetition;
            }
            *logit -= count as f32 * params.penalty_frequency + params.penalty_presence;
        }
        if banned.contains(&id) {
            *logit = f32::NEG_INFINITY;
        }
    }
    in_64_bits(&adjusted)
}
