//! Min-p sampling (Nguyen et al. 2024, arXiv:2407.01082), as in llama.cpp.

use super::candidates::Candidates;

/// Drops candidates with less than `min_p` times the probability of the
/// likeliest. Off for `min_p` of 0 or less.
pub fn min_p(candidates: &mut Candidates, min_p: f32) {
    if min_p <= 0.0 || candidates.is_empty() {
        return;
    }
    let logits = candidates.items().iter().map(|item| item.logit);
    let max = logits.fold(f32::NEG_INFINITY, f32::max);
    candidates.keep_from_logit(least_logit(max, min_p));
}

/// The least logit that is kept, at most the highest one: no probability is
/// needed to know it.
pub fn least_logit(max: f32, min_p: f32) -> f32 {
    (max + min_p.ln()).min(max)
}
