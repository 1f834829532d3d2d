//! Repetition (Keskar et al. 2019, arXiv:1909.05858), frequency and presence
//! penalties.

use std::collections::{BTreeMap, VecDeque};

use super::SamplingParams;
use crate::model::Token;

/// The recent tokens of one sequence, and what to do about them.
#[derive(Debug)]
pub struct Penalties {
    repetition: f32,
    frequency: f32,
    presence: f32,
    newline: Option<Token>,
    /// Tokens that count; `None`: all.
    window: Option<usize>,
    /// The tokens of the window, oldest first; empty if all count.
    recent: VecDeque<Token>,
    /// How often each token occurs in the window.
    counts: BTreeMap<Token, u32>,
}

impl Penalties {
    /// Penalties before the first token. `newline` is never penalised.
    pub fn new(params: &SamplingParams, newline: Option<Token>) -> Self {
        let off = params.penalty_repetition == 1.0
            && params.penalty_frequency == 0.0
            && params.penalty_presence == 0.0;
        Self {
            repetition: params.penalty_repetition,
            frequency: params.penalty_frequency,
            presence: params.penalty_presence,
            newline,
            window: if off {
                Some(0)
            } else {
                params.penalty_last_n.try_into().ok()
            },
            recent: VecDeque::new(),
            counts: BTreeMap::new(),
        }
    }

    /// Makes `token` the newest of the window. Numbers that are no token of
    /// the vocabulary take their place in it, too.
    pub fn accept(&mut self, token: Token) {
        if let Some(window) = self.window {
            if window == 0 {
                return;
            }
            if self.recent.len() == window {
                self.drop_oldest();
            }
            self.recent.push_back(token);
        }
        *self.counts.entry(token).or_default() += 1;
    }

    /// Sets `replaced` to the tokens of which the logit is another after
    /// penalties and bans, by rising id, each with that logit: minus infinity
    /// for those in `banned`.
    pub fn replace(&self, logits: &[f32], banned: &[Token], replaced: &mut Vec<(Token, f32)>) {
        replaced.clear();
        let is_token = |token: Token| usize::try_from(token).is_ok_and(|id| id < logits.len());
        for (&token, &count) in &self.counts {
            if is_token(token) && self.newline != Some(token) && !banned.contains(&token) {
                replaced.push((token, self.penalise(logits[token as usize], count)));
            }
        }
        if !banned.is_empty() {
            let banned = banned.iter().filter(|&&token| is_token(token));
            replaced.extend(banned.map(|&token| (token, f32::NEG_INFINITY)));
            replaced.sort_unstable_by_key(|&(token, _)| token);
            replaced.dedup_by_key(|&mut (token, _)| token);
        }
    }

    fn penalise(&self, logit: f32, count: u32) -> f32 {
        let repeated = if logit > 0.0 {
            logit / self.repetition
        } else {
            logit * self.repetition
        };
        repeated - (count as f32 * self.frequency + self.presence)
    }

    fn drop_oldest(&mut self) {
        let Some(oldest) = self.recent.pop_front() else {
            return;
        };
        if let Some(count) = self.counts.get_mut(&oldest) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&oldest);
            }
        }
    }
}
