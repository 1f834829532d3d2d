//! Tail-free sampling (Phénix and Egan 2019), as llama.cpp had it until 2024.

use super::candidates::{Candidate, Candidates};

/// Sums of second differences up to this are taken for 0.
const FLAT: f32 = 1e-6;

/// Cuts where the curve of the sorted probabilities has become flat: at the
/// first candidate of a rank from 1 on where the running sum of the absolute
/// second differences, as a share of their sum, is above `z`. That one is
/// dropped, too. If the curve has no curvature at all, each second difference
/// counts the same.
///
/// Off for `z` of 1 or more and for two candidates or fewer.
pub fn tail_free(candidates: &mut Candidates, z: f32) {
    if z >= 1.0 || candidates.len() <= 2 {
        return;
    }
    candidates.softmax();
    candidates.sort();
    let curvature = candidates.items().windows(3).map(second_difference);
    let sum = curvature.clone().map(f64::from).sum::<f64>() as f32;
    let uniform = 1.0 / curvature.len() as f32;
    let mut running = 0.0;
    let cut = curvature
        .map(|second| if sum > FLAT { second / sum } else { uniform })
        .enumerate()
        .find_map(|(rank, share)| {
            running += share;
            (rank >= 1 && running > z).then_some(rank)
        });
    if let Some(rank) = cut {
        candidates.keep_first(rank);
    }
}

fn second_difference(three: &[Candidate]) -> f32 {
    ((three[0].p - three[1].p) - (three[1].p - three[2].p)).abs()
}
