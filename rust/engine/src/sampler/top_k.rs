//! Top-k sampling (Fan et al. 2018, arXiv:1805.04833).

use super::candidates::Candidates;
use super::logits::Logits;

/// Makes `candidates` the `k` likeliest tokens, or all if `k` is 0 or less,
/// sorted. Ties go to the lowest ids.
///
/// It starts from the logits, since it is the filter that spares the others
/// the whole vocabulary.
pub fn top_k(logits: &Logits, k: i32, candidates: &mut Candidates) {
    let k = if k > 0 { k as usize } else { logits.len() };
    candidates.gather_top(logits, k);
}
