//! Exponential and hyperbolic tangent of vectors.

use super::Simd;

/// e^x for x <= 88, within 2 units of the last place; 0 where the result would
/// be denormal.
#[inline(always)]
pub(crate) fn exp<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    let constant = |x| simd.splat(x);
    // x = n ln 2 + r with |r| <= ln 2 / 2; ln 2 in two parts, of which the
    // first has few bits, so that n times it is exact.
    let magic = constant(12_582_912.0);
    let shifted = simd.fma(x, constant(std::f32::consts::LOG2_E), magic);
    let n = simd.sub(shifted, magic);
    let r = simd.fma(n, constant(-355.0 / 512.0), x);
    let r = simd.fma(n, constant(2.121_944_4e-4), r);
    // (e^r - 1 - r) / r^2, fitted for the least maximum of e^r's error.
    let p = constant(0.001_381_459_6);
    let p = simd.fma(p, r, constant(0.008_368_717));
    let p = simd.fma(p, r, constant(0.041_668_39));
    let p = simd.fma(p, r, constant(0.166_665_21));
    let p = simd.fma(p, r, constant(0.499_999_93));
    let p = simd.fma(simd.mul(r, r), p, r);
    let scale = simd.power_of_two(shifted);
    let result = simd.fma(scale, p, scale);
    simd.if_less(x, constant(-87.336_54), constant(0.0), result)
}

/// tanh x, within 4 units of the last place.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(simd: S, x: S::Vector) -> S::Vector {
    let constant = |x| simd.splat(x);
    let abs = simd.abs(x);
    // Small: x + x^3 p(x^2), fitted for the least maximum error.
    let square = simd.mul(x, x);
    let p = constant(-0.005_717_037);
    let p = simd.fma(p, square, constant(0.020_650_58));
    let p = simd.fma(p, square, constant(-0.053_743_496));
    let p = simd.fma(p, square, constant(0.133_314_92));
    let p = simd.fma(p, square, constant(-0.333_332_84));
    let small = simd.fma(simd.mul(x, square), p, x);
    // Large: (1 - e^-2|x|) / (1 + e^-2|x|), with the sign of x.
    let t = exp(simd, simd.mul(abs, constant(-2.0)));
    let large = simd.div(simd.sub(constant(1.0), t), simd.add(constant(1.0), t));
    let large = simd.if_less(x, constant(0.0), simd.sub(constant(0.0), large), large);
    simd.if_less(abs, constant(0.625), small, large)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Portable;

    /// Largest error of `f` in units of the last place, over `count` arguments
    /// from `start` to `end`.
    fn error(
        f: impl Fn([f32; 16]) -> [f32; 16],
        exact: impl Fn(f64) -> f64,
        [start, end]: [f32; 2],
    ) -> f64 {
        let count = if cfg!(miri) { 100 } else { 200_000 };
        let mut largest = 0.0f64;
        for i in 0..=count {
            let x = start + (end - start) * (i as f32 / count as f32);
            let expected = exact(f64::from(x));
            let unit =
                f64::from((expected as f32).abs().next_up()) - f64::from((expected as f32).abs());
            largest = largest.max((f64::from(f([x; 16])[0]) - expected).abs() / unit);
        }
        largest
    }

    #[test]
    fn exp_is_exact_to_two_units() {
        let exp = |x| exp(Portable, x);
        for range in [[-87.3, 0.0], [-1.0, 1.0], [-1e-3, 1e-3], [0.0, 88.0]] {
            let error = error(exp, f64::exp, range);
            assert!(error <= 2.0, "{error} in {range:?}");
        }
        for (x, expected) in [
            (0.0, 1.0),
            (-88.0, 0.0),
            (-1e30, 0.0),
            (f32::NEG_INFINITY, 0.0),
        ] {
            assert_eq!(exp([x; 16]), [expected; 16]);
        }
        assert!(exp([f32::NAN; 16])[0].is_nan());
    }

    #[test]
    fn tanh_is_exact_to_four_units() {
        let tanh = |x| tanh(Portable, x);
        for range in [[-10.0, 10.0], [-0.7, 0.7], [-1e-3, 1e-3], [1e-30, 1e-20]] {
            let error = error(tanh, f64::tanh, range);
            assert!(error <= 4.0, "{error} in {range:?}");
        }
        assert_eq!(tanh([f32::INFINITY; 16]), [1.0; 16]);
        assert_eq!(tanh([f32::NEG_INFINITY; 16]), [-1.0; 16]);
        assert!(tanh([f32::NAN; 16])[0].is_nan());
    }
}
