//! Temperature.

use super::candidates::Candidates;

/// Divides the logits by `temperature`, which must be above 0.
pub fn temperature(candidates: &mut Candidates, temperature: f32) {
    candidates.divide(temperature);
}
