//! Picks the next token from a row of logits.
//!
//! The order is that of llama.cpp in 2023–24: penalties, then greedy if the
//! temperature is 0 or less, or mirostat if it is on, or else top-k,
//! tail-free, typical, top-p, min-p, temperature and a draw. [`chain`] puts
//! the filters in that order; each filter is one file and can be called alone.
//!
//! A token costs about one read of the logits. The vocabulary is never copied
//! or sorted for the usual parameters: penalties and bans replace a few values
//! behind a view ([`logits::Logits`]), the maxima of blocks say which of them
//! are worth a second look and from what logit on, and a softmax is computed
//! over the candidates found there only.

pub mod candidates;
pub mod chain;
pub mod draw;
pub mod greedy;
pub mod logits;
pub mod min_p;
pub mod mirostat;
pub mod penalties;
pub mod rng;
pub mod tail_free;
pub mod temperature;
pub mod top_k;
pub mod top_p;
pub mod typical;

use std::sync::Arc;

use crate::model::Token;
use candidates::Candidates;
use logits::Logits;
use mirostat::Mirostat;
use penalties::Penalties;
use rng::SplitMix64;

/// Valid sampling parameters of one request.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// 0 or less: greedy.
    pub temperature: f32,
    /// Likeliest tokens kept; 0 or less: off.
    pub top_k: i32,
    /// Probability mass kept; 1 or more: off.
    pub top_p: f32,
    /// Least probability kept, as a share of the likeliest token's; 0: off.
    pub min_p: f32,
    /// Mass kept of the tokens closest to the entropy; 1 or more: off.
    pub typical_p: f32,
    /// Share of the curvature kept; 1 or more: off.
    pub tail_free_sampling_z: f32,
    /// Divides positive logits and multiplies others, once a token; 1: off.
    pub penalty_repetition: f32,
    /// Subtracted from the logit for each occurrence; 0: off.
    pub penalty_frequency: f32,
    /// Subtracted from the logit if there is an occurrence; 0: off.
    pub penalty_presence: f32,
    /// Tokens of the history that penalties look at; 0: none, negative: all.
    pub penalty_last_n: i32,
    /// 0: off, 1: mirostat, 2: mirostat 2.0.
    pub mirostat: u8,
    /// Surprise that mirostat aims at, in bits.
    pub mirostat_tau: f32,
    /// Learning rate of mirostat.
    pub mirostat_eta: f32,
    /// `None`: from the operating system.
    pub seed: Option<u64>,
}

impl SamplingParams {
    /// Always the likeliest token: no draw, every filter and penalty off.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            tail_free_sampling_z: 1.0,
            penalty_repetition: 1.0,
            penalty_frequency: 0.0,
            penalty_presence: 0.0,
            penalty_last_n: 0,
            mirostat: 0,
            mirostat_tau: 5.0,
            mirostat_eta: 0.1,
            seed: Some(0),
        }
    }
}

/// Buffers for sampling, reused from token to token and shared by all
/// sequences that are sampled on one thread.
#[derive(Debug, Default)]
pub struct Scratch {
    replaced: Vec<(Token, f32)>,
    candidates: Candidates,
}

/// The state of one sequence: its recent tokens, its random numbers and
/// mirostat's limit.
#[derive(Debug)]
pub struct Sampler {
    params: SamplingParams,
    penalties: Penalties,
    banned: Arc<[Token]>,
    mirostat: Option<Mirostat>,
    rng: SplitMix64,
}

impl Sampler {
    /// A sampler with no history. `newline` is never penalised, and `banned`
    /// are never picked: the end-of-generation tokens if they are to be
    /// ignored.
    pub fn new(params: &SamplingParams, newline: Option<Token>, banned: Arc<[Token]>) -> Self {
        Self {
            params: params.clone(),
            penalties: Penalties::new(params, newline),
            banned,
            mirostat: Mirostat::new(params),
            rng: params
                .seed
                .map_or_else(SplitMix64::from_entropy, SplitMix64::new),
        }
    }

    /// Makes `token`, generated or of the prompt, the newest of the history
    /// that penalties look at.
    pub fn accept(&mut self, token: Token) {
        self.penalties.accept(token);
    }

    /// The next token, from one logit for each token of the vocabulary; does
    /// not accept it.
    ///
    /// A NaN counts as minus infinity. If no logit is left above that, it is
    /// the lowest token that is not banned, or 0 if there is none. Tokens with
    /// a logit of plus infinity share all the probability.
    ///
    /// Uses up exactly one random number, or none if greedy, so that a
    /// sequence depends on its seed and its own logits only.
    pub fn sample(&mut self, logits: &[f32], scratch: &mut Scratch) -> Token {
        let Scratch {
            replaced,
            candidates,
        } = scratch;
        self.penalties.replace(logits, &self.banned, replaced);
        let logits = Logits::new(logits, replaced);
        let picked = if self.params.temperature <= 0.0 {
            greedy::greedy(&logits)
        } else {
            let u = self.rng.uniform();
            match &mut self.mirostat {
                Some(mirostat) => mirostat.pick(&logits, self.params.temperature, u, candidates),
                None => chain::pick(&self.params, &logits, u, candidates),
            }
        };
        picked.unwrap_or_else(|| self.first_allowed(logits.len()))
    }

    fn first_allowed(&self, n_vocab: usize) -> Token {
        (0..n_vocab as Token)
            .find(|token| !self.banned.contains(token))
            .unwrap_or(0)
    }
}
