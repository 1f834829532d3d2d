//! Gated units: values that are multiplied by a function of others.

use crate::dispatch::Tier;
use crate::matmul::GROUP;
use crate::simd::math::{exp, tanh};
use crate::simd::{Kernel, LANES, Simd, run};

/// What becomes of a gate before it multiplies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Activation {
    /// x / (1 + e^-x)
    Silu,
    /// x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))): about x times the
    /// normal distribution's function.
    Gelu,
}

impl Activation {
    /// `values[i] *= activation(gates[i])`, in each of the rows.
    ///
    /// # Panics
    /// If the CPU does not have the tier, or there are not as many gates.
    pub fn gate(self, tier: Tier, gates: &[[f32; GROUP]], values: &mut [[f32; GROUP]]) {
        assert!(tier.is_available());
        let (gates, values) = (gates.as_flattened(), values.as_flattened_mut());
        assert_eq!(gates.len(), values.len());
        // SAFETY: the tier is available; the kernel asks for nothing.
        unsafe {
            run(
                tier,
                Gated {
                    activation: self,
                    gates,
                    values,
                },
            )
        }
    }
}

/// Multiplies values by gates.
struct Gated<'a> {
    activation: Activation,
    gates: &'a [f32],
    values: &'a mut [f32],
}

impl Kernel for Gated<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let gates = self.gates.as_chunks::<LANES>().0;
        let values = self.values.as_chunks_mut::<LANES>().0;
        for (gate, value) in gates.iter().zip(values) {
            // SAFETY: a chunk has the floats of a vector.
            unsafe {
                let gate = simd.load(gate.as_ptr());
                let gate = match self.activation {
                    Activation::Silu => silu(simd, gate),
                    Activation::Gelu => gelu(simd, gate),
                };
                let product = simd.mul(gate, simd.load(value.as_ptr()));
                simd.store(value.as_mut_ptr(), product);
            }
        }
    }
}

#[inline(always)]
fn silu<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    // What is less would be 0 but for its sign, and e^-x not finite.
    let x = simd.max(simd.splat(-88.0), x);
    let e = exp(simd, simd.sub(simd.splat(0.0), x));
    simd.div(x, simd.add(simd.splat(1.0), e))
}

#[inline(always)]
fn gelu<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    // What is less is 0 as well.
    let x = simd.max(simd.splat(-10.0), x);
    let cubic = simd.mul(simd.mul(x, x), simd.splat(0.044_715));
    let inner = simd.fma(x, cubic, x);
    let inner = simd.mul(inner, simd.splat(0.797_884_6));
    let half = simd.mul(x, simd.splat(0.5));
    simd.fma(half, tanh(simd, inner), half)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `activation(x)` in every tier.
    fn activated(activation: Activation, x: f32) -> f32 {
        let tiers = Tier::ALL.into_iter().filter(|tier| tier.is_available());
        let results = tiers.map(|tier| {
            let mut values = [[1.0; GROUP]];
            activation.gate(tier, &[[x; GROUP]], &mut values);
            values[0][GROUP - 1]
        });
        let results: Vec<f32> = results.collect();
        assert!(results.iter().all(|y| y.to_bits() == results[0].to_bits()));
        results[0]
    }

    #[test]
    fn activations_are_those_of_f64() {
        let count = if cfg!(miri) { 50 } else { 100_000 };
        for i in 0..=count {
            let x = 40.0 * (i as f32 / count as f32) - 20.0;
            let wide = f64::from(x);
            let silu = wide / (1.0 + (-wide).exp());
            let cubic = wide + 0.044715 * wide.powi(3);
            let gelu = wide / 2.0 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * cubic).tanh());
            for (activation, expected) in [(Activation::Silu, silu), (Activation::Gelu, gelu)] {
                let error = (f64::from(activated(activation, x)) - expected).abs();
                // Where GELU is next to nothing it is a difference.
                assert!(
                    error <= 1e-6 * expected.abs() + 3e-7 * wide.abs(),
                    "{activation:?} of {x}: {error:e}"
                );
            }
        }
    }

    #[test]
    fn extremes_stay_in_bounds() {
        for activation in [Activation::Silu, Activation::Gelu] {
            for x in [-1e38, -1e10, -200.0, f32::NEG_INFINITY] {
                assert!(activated(activation, x).abs() < 1e-30, "{x}");
            }
            for x in [200.0, 1e10, 1e38, f32::INFINITY] {
                assert_eq!(activated(activation, x), x);
            }
            assert_eq!(activated(activation, 0.0), 0.0);
            assert!(activated(activation, f32::NAN).is_nan());
        }
    }
}
