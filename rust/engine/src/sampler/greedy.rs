//! Greedy sampling.

use super::logits::Logits;
use crate::model::Token;

/// The token of the highest logit, the lowest id on a tie; `None` if no logit
/// is above minus infinity.
pub fn greedy(logits: &Logits) -> Option<Token> {
    let mut best = None;
    logits.scan_above(f32::NEG_INFINITY, |id, logit| {
        best = Some(id);
        logit
    });
    best
}
