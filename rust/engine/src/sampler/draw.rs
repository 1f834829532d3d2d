//! The draw.

use super::candidates::{Candidate, Candidates};

/// Picks a candidate by `u`, from 0 to 1, after a softmax.
///
/// The candidates stand in a row by falling logit, ties by rising id, each as
/// wide as its probability; the picked one is where `u` falls: the first whose
/// running sum is above `u`. Should rounding leave the whole sum at or below
/// `u`, it is the last one that has a probability above 0. `None` if no
/// candidate has a logit above minus infinity.
pub fn draw(candidates: &mut Candidates, u: f64) -> Option<Candidate> {
    let mut picked = None;
    let mut sum = 0.0;
    for rank in 0..candidates.len() {
        let candidate = candidates.nth(rank);
        if candidate.p == 0.0 || candidate.logit == f32::NEG_INFINITY {
            break;
        }
        picked = Some(candidate);
        sum += f64::from(candidate.p);
        if sum > u {
            break;
        }
    }
    picked
}
