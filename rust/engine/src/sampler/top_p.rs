//! Top-p or nucleus sampling (Holtzman et al. 2019, arXiv:1904.09751).

use super::candidates::Candidates;

/// Keeps the likeliest candidates, up to and including the first whose running
/// probability reaches `top_p`. Off for `top_p` of 1 or more.
pub fn top_p(candidates: &mut Candidates, top_p: f32) {
    if top_p >= 1.0 {
        return;
    }
    candidates.softmax();
    let mut sum = 0.0;
    candidates.keep_through(|candidate| {
        sum += candidate.p;
        sum >= top_p
    });
}
