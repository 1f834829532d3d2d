//! Locally typical sampling (Meister et al. 2022, arXiv:2202.00666).

use super::candidates::{Candidate, Candidates, sort_next};

/// Keeps the candidates whose surprise is closest to the entropy, up to and
/// including the first whose running probability is above `typical_p`; the
/// likeliest need not be among them. Leaves them by rising distance from the
/// entropy.
///
/// Off for `typical_p` of 1 or more. A candidate of probability 0 adds nothing
/// to the entropy and comes last.
pub fn typical(candidates: &mut Candidates, typical_p: f32) {
    if typical_p >= 1.0 {
        return;
    }
    candidates.softmax();
    let possible = candidates.items().iter().filter(|item| item.p > 0.0);
    let entropy = possible
        .map(|item| -f64::from(item.p) * f64::from(item.p.ln()))
        .sum::<f64>() as f32;
    let mut scored: Vec<(f32, Candidate)> = candidates
        .items()
        .iter()
        .map(|&item| ((-item.p.ln() - entropy).abs(), item))
        .collect();

    let mut sorted = 0;
    let mut sum = 0.0;
    let mut kept = 0;
    while kept < scored.len() && (kept == 0 || sum <= typical_p) {
        if kept == sorted {
            sorted = sort_next(&mut scored, sorted, kept + 1, |a, b| {
                a.0.total_cmp(&b.0).then(a.1.order(&b.1))
            });
        }
        sum += scored[kept].1.p;
        kept += 1;
    }
    candidates.keep_these(scored[..kept].iter().map(|&(_, item)| item));
}
