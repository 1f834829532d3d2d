//! The order of the filters, where neither greedy nor mirostat is on.

use super::candidates::Candidates;
use super::logits::Logits;
use super::{SamplingParams, draw, min_p, tail_free, temperature, top_k, top_p, typical};
use crate::model::Token;

/// Picks a token with `u` from 0 to 1; see [`draw::draw`]. `None` if no logit
/// is above minus infinity.
pub fn pick(
    params: &SamplingParams,
    logits: &Logits,
    u: f64,
    candidates: &mut Candidates,
) -> Option<Token> {
    distribution(params, logits, u, candidates);
    draw::draw(candidates, u).map(|picked| picked.id)
}

/// Computes the distribution to draw from. Candidates that come after the
/// probability `mass`, by falling probability, may be missing.
pub fn distribution(
    params: &SamplingParams,
    logits: &Logits,
    mass: f64,
    candidates: &mut Candidates,
) {
    let filtered = gather(params, logits, candidates);
    if filtered {
        tail_free::tail_free(candidates, params.tail_free_sampling_z);
        typical::typical(candidates, params.typical_p);
        top_p::top_p(candidates, params.top_p);
        min_p::min_p(candidates, params.min_p);
        temperature::temperature(candidates, params.temperature);
    } else {
        candidates.gather_mass(logits, params.temperature, f32::NEG_INFINITY, mass);
    }
    candidates.softmax();
}

/// Gathers what the first filter that is on can keep; false if none is.
fn gather(params: &SamplingParams, logits: &Logits, candidates: &mut Candidates) -> bool {
    if params.top_k > 0 {
        top_k::top_k(logits, params.top_k, candidates);
    } else if params.tail_free_sampling_z < 1.0 || params.typical_p < 1.0 {
        candidates.gather_all(logits);
    } else if params.top_p < 1.0 {
        candidates.gather_mass(logits, 1.0, f32::NEG_INFINITY, params.top_p.into());
    } else if params.min_p > 0.0 {
        let least = min_p::least_logit(logits.max(), params.min_p);
        candidates.gather_above(logits, least.next_down());
    } else {
        return false;
    }
    true
}
