//! What becomes of the sums of attention.

use crate::simd::Simd;
use crate::simd::math::{exp, tanh};

/// Scores with a soft cap, which they were divided by.
#[inline(always)]
pub(super) fn capped<S: Simd>(simd: S, scores: S::Vector, soft_cap: f32) -> S::Vector {
    simd.mul(tanh(simd, scores), simd.splat(soft_cap))
}

/// What scores are compared with: their maxima, but 0 where nothing has been
/// seen yet, as the difference of infinities is not a number.
#[inline(always)]
pub(super) fn baseline<S: Simd>(simd: S, maxima: S::Vector) -> S::Vector {
    let nothing = simd.splat(f32::NEG_INFINITY);
    simd.if_less(nothing, maxima, maxima, simd.splat(0.0))
}

/// What weighted sums are to be multiplied by in the end: one over the sum of
/// the weights, with the sinks' own; 0 where there is none.
#[inline(always)]
pub(super) fn final_factors<S: Simd>(
    simd: S,
    maxima: S::Vector,
    sums: S::Vector,
    sinks: Option<S::Vector>,
) -> S::Vector {
    let (zero, one) = (simd.splat(0.0), simd.splat(1.0));
    let (factor, sums) = match sinks {
        None => (one, sums),
        Some(sinks) => {
            let max = simd.max(maxima, sinks);
            let factor = exp(simd, simd.sub(maxima, max));
            (
                factor,
                simd.fma(sums, factor, exp(simd, simd.sub(sinks, max))),
            )
        }
    };
    simd.if_less(
        sums,
        simd.splat(f32::MIN_POSITIVE),
        zero,
        simd.div(factor, sums),
    )
}
