//! Mirostat and mirostat 2.0 (Basu et al. 2020, arXiv:2007.14966), which steer
//! the surprise of the text towards a target.

use std::f64::consts::LN_2;

use super::candidates::{Candidate, Candidates};
use super::logits::Logits;
use super::{SamplingParams, draw};
use crate::model::Token;

/// Likeliest tokens from which the slope is estimated.
const ESTIMATED_FROM: usize = 100;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Keeps as many tokens as a Zipf law with an estimated slope asks for.
    One,
    /// Keeps the tokens whose surprise is at most the limit.
    Two,
}

/// The state of mirostat in one sequence.
#[derive(Debug, Clone)]
pub struct Mirostat {
    /// Which of the two.
    pub version: Version,
    /// Surprise aimed at, in bits.
    pub tau: f32,
    /// Learning rate.
    pub eta: f32,
    /// The limit on the surprise, in bits: from `2 * tau` on, it moves by
    /// `eta` times the error of every token.
    pub mu: f32,
}

impl Mirostat {
    /// What `params` asks for; `None` if mirostat is off.
    pub fn new(params: &SamplingParams) -> Option<Self> {
        let version = match params.mirostat {
            1 => Version::One,
            2 => Version::Two,
            _ => return None,
        };
        Some(Self {
            version,
            tau: params.mirostat_tau,
            eta: params.mirostat_eta,
            mu: 2.0 * params.mirostat_tau,
        })
    }

    /// Picks a token with `u` from 0 to 1, see [`draw::draw`], and moves the
    /// limit. `None` if no logit is above minus infinity.
    pub fn pick(
        &mut self,
        logits: &Logits,
        temperature: f32,
        u: f64,
        candidates: &mut Candidates,
    ) -> Option<Token> {
        self.keep(logits, temperature, u, candidates);
        let picked = draw::draw(candidates, u)?;
        self.learn(picked.p);
        Some(picked.id)
    }

    /// Makes `candidates` the distribution to draw from. Those that come after
    /// the probability `mass`, by falling probability, may be missing.
    pub fn keep(&self, logits: &Logits, temperature: f32, mass: f64, candidates: &mut Candidates) {
        match self.version {
            Version::One => self.keep_by_count(logits, temperature, candidates),
            Version::Two => self.keep_by_surprise(logits, temperature, mass, candidates),
        }
        candidates.softmax();
    }

    /// Moves the limit after a token of probability `p` among those kept.
    pub fn learn(&mut self, p: f32) {
        self.mu -= self.eta * (-p.log2() - self.tau);
    }

    fn keep_by_count(&self, logits: &Logits, temperature: f32, candidates: &mut Candidates) {
        candidates.gather_top(logits, ESTIMATED_FROM);
        candidates.divide(temperature);
        candidates.softmax();
        let s = slope(candidates.items());
        // NaN becomes 0 here, and infinity the greatest number.
        let k = (count(s, self.mu, logits.len()) as usize).max(1);
        if k > candidates.len() && candidates.len() < logits.len() {
            candidates.gather_top(logits, k);
            candidates.divide(temperature);
        }
        candidates.keep_first(k);
    }

    fn keep_by_surprise(
        &self,
        logits: &Logits,
        temperature: f32,
        mass: f64,
        candidates: &mut Candidates,
    ) {
        let max = logits.max();
        // The surprise of a token is log2(Z) + (max - logit) / (T * ln 2).
        let least_surprise = logits.partition(max, temperature, f32::NEG_INFINITY).log2();
        let spare = f64::from(self.mu) - least_surprise;
        if spare < 0.0 {
            candidates.gather_top(logits, 1);
        } else {
            let least = f64::from(max) - spare * f64::from(temperature) * LN_2;
            candidates.gather_mass(logits, temperature, least as f32, mass);
        }
    }
}

/// The exponent of a Zipf law fitted to the likeliest candidates, which must
/// be sorted and have their probabilities: `s = sum(t * b) / sum(t * t)` with
/// `t = ln((i + 2) / (i + 1))` and `b = ln(p[i] / p[i + 1])`. NaN for fewer
/// than two candidates, and NaN or infinite if a probability is 0.
pub fn slope(sorted: &[Candidate]) -> f64 {
    let first = &sorted[..sorted.len().min(ESTIMATED_FROM)];
    let (mut tb, mut tt) = (0.0, 0.0);
    for (i, pair) in first.windows(2).enumerate() {
        let t = ((i + 2) as f64 / (i + 1) as f64).ln();
        let b = (f64::from(pair[0].p) / f64::from(pair[1].p)).ln();
        tb += t * b;
        tt += t * t;
    }
    tb / tt
}

/// How many tokens to keep for a surprise of `mu` at the slope `s`, not yet
/// rounded down; infinite, NaN or under 1 for some slopes.
pub fn count(s: f64, mu: f32, n_vocab: usize) -> f32 {
    let e = s - 1.0;
    let of_total = e * f64::from(mu).exp2() / (1.0 - (n_vocab as f64).powf(-e));
    of_total.powf(1.0 / s) as f32
}
