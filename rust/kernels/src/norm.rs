//! Root mean square normalization of rows.

use crate::dispatch::Tier;
use crate::simd::{Kernel, LANES, Simd, run};

/// `x[i] * weight[i] / sqrt(mean of the squares of x + epsilon)`.
#[derive(Clone, Copy, Debug)]
pub struct RmsNorm<'a> {
    /// As many as a row has values.
    pub weight: &'a [f32],
    /// Not negative.
    pub epsilon: f32,
}

impl RmsNorm<'_> {
    /// The norm of the row `x`, a multiple of 32 values, into `out`.
    ///
    /// # Panics
    /// If the CPU does not have the tier, or the lengths differ.
    pub fn apply(&self, tier: Tier, x: &[f32], out: &mut [f32]) {
        assert!(tier.is_available());
        assert!(x.len() == self.weight.len() && x.len() == out.len());
        assert!(x.len().is_multiple_of(2 * LANES));
        // SAFETY: the tier is available, the lengths are as asked for.
        unsafe { run(tier, Normed { norm: self, x, out }) }
    }
}

/// Asks for rows of the same length, a multiple of 32.
struct Normed<'a> {
    norm: &'a RmsNorm<'a>,
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Normed<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Normed { norm, x, out } = self;
        let mut sums = [simd.splat(0.0); 2];
        let mut lanes = [0.0; LANES];
        // SAFETY: all indices are below the common length.
        unsafe {
            for start in (0..x.len()).step_by(2 * LANES) {
                for (part, sum) in sums.iter_mut().enumerate() {
                    let x = simd.load(x.as_ptr().add(start + part * LANES));
                    *sum = simd.fma(x, x, *sum);
                }
            }
            simd.store(lanes.as_mut_ptr(), simd.add(sums[0], sums[1]));
        }
        let mean = lanes.iter().sum::<f32>() / x.len() as f32;
        let scale = simd.splat(1.0 / (mean + norm.epsilon).sqrt());
        // SAFETY: as above.
        unsafe {
            for start in (0..x.len()).step_by(LANES) {
                let scaled = simd.mul(simd.load(x.as_ptr().add(start)), scale);
                let weight = simd.load(norm.weight.as_ptr().add(start));
                simd.store(out.as_mut_ptr().add(start), simd.mul(scaled, weight));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_are_those_of_f64_in_every_tier() {
        let mut random = fastrand::Rng::with_seed(1);
        for cols in [32, 64, 576, 2080] {
            for scale in [1e-20, 1e-3, 1.0, 1e15] {
                let mut row = || -> Vec<f32> {
                    let value = |_| (random.f32() - 0.5) * 2.0;
                    (0..cols).map(value).collect()
                };
                let x: Vec<f32> = row().iter().map(|x| x * scale).collect();
                let weight = row();
                let norm = RmsNorm {
                    weight: &weight,
                    epsilon: 1e-5,
                };
                let results: Vec<Vec<f32>> = Tier::ALL
                    .into_iter()
                    .filter(|tier| tier.is_available())
                    .map(|tier| {
                        let mut out = vec![0.0; cols];
                        norm.apply(tier, &x, &mut out);
                        out
                    })
                    .collect();
                assert!(results.iter().all(|result| *result == results[0]));
                let squares: f64 = x.iter().map(|&x| f64::from(x).powi(2)).sum();
                let factor = 1.0 / (squares / cols as f64 + 1e-5).sqrt();
                for ((x, weight), y) in x.iter().zip(&weight).zip(&results[0]) {
                    let expected = f64::from(*x) * factor * f64::from(*weight);
                    assert!((f64::from(*y) - expected).abs() <= 1e-6 * expected.abs() + 1e-30);
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_number_stays_in_the_row() {
        let norm = RmsNorm {
            weight: &[1.0; 32],
            epsilon: 0.0,
        };
        let mut x = [1.0; 32];
        x[7] = f32::NAN;
        let mut out = [0.0; 32];
        norm.apply(Tier::Portable, &x, &mut out);
        assert!(out.iter().all(|y| y.is_nan()));
    }
}
