//! The steps of a row's computation.

#![allow(
    clippy::needless_range_loop,
    reason = "arrays with constant indices stay in registers"
)]

use super::{BLOCK, Cells, Chunk, Heads};
use crate::attention::Shape;
use crate::attention::cache::Row;
use crate::attention::math::{baseline, capped};
use crate::simd::math::exp;
use crate::simd::{Kernel, LANES, Simd};

/// How far ahead in the list keys are asked for.
const AHEAD: usize = 8;

/// Scores of `H` heads from `first` on, `C` cells at a time.
///
/// To run it, the tensors must be valid, the rows keys.
pub(super) struct Scores<'a, K, const H: usize, const C: usize> {
    pub heads: &'a Heads<'a>,
    pub kind: K,
    pub first: usize,
    pub scores: &'a mut [f32],
    /// `[head][cell]`: vectors whose lanes are to be summed.
    pub products: &'a mut [f32],
}

impl<K: Row, const H: usize, const C: usize> Kernel for Scores<'_, K, H, C> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self {
            heads,
            kind,
            first,
            scores,
            products,
        } = self;
        let &Heads {
            chunk: &Chunk {
                node, row, group, ..
            },
            rows,
            count,
        } = heads;
        let shape = node.shape;
        let scale = simd.splat(shape.score_scale());
        let mut queries = [std::ptr::null(); H];
        for (h, query) in queries.iter_mut().enumerate() {
            *query = node.query(row, group.first + first + h);
        }
        assert!(count <= BLOCK && scores.len() >= H * BLOCK);
        assert!(products.len() >= H * LANES * LANES);
        for start in (0..count).step_by(LANES) {
            for cell in (start..start + LANES).step_by(C) {
                let mut sums = [[simd.splat(0.0); C]; H];
                // SAFETY: key_dim values in keys and queries; the products have
                // room for 16 vectors of each head.
                unsafe {
                    for c in 0..C {
                        simd.prefetch(rows[(cell + c + AHEAD) % BLOCK]);
                    }
                    for index in 0..shape.key_dim / LANES {
                        let mut key = [simd.splat(0.0); C];
                        for c in 0..C {
                            key[c] = kind.load(simd, rows[cell + c], index);
                        }
                        for h in 0..H {
                            let query = simd.load(queries[h].add(index * LANES));
                            for c in 0..C {
                                sums[h][c] = simd.fma(key[c], query, sums[h][c]);
                            }
                        }
                    }
                    for h in 0..H {
                        for c in 0..C {
                            let at = (h * LANES + cell - start + c) * LANES;
                            simd.store(products.as_mut_ptr().add(at), sums[h][c]);
                        }
                    }
                }
            }
            for h in 0..H {
                // SAFETY: 16 vectors of the head; start + 15 < BLOCK.
                unsafe {
                    let sums = simd.row_sums(products.as_ptr().add(h * LANES * LANES));
                    let scores = scores.as_mut_ptr().add(h * BLOCK + start);
                    simd.store(scores, simd.mul(sums, scale));
                }
            }
        }
    }
}

/// Turns the scores of a head into weights relative to the new maximum. Returns
/// what its earlier results are to be multiplied by.
pub(super) struct Weights<'a> {
    pub shape: &'a Shape,
    pub head: usize,
    pub cells: &'a Cells<'a>,
    pub scores: &'a mut [f32],
    /// Largest score so far.
    pub max: &'a mut f32,
    /// Sum of the weights so far.
    pub sum: &'a mut f32,
}

impl Kernel for Weights<'_> {
    type Output = f32;

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) -> f32 {
        let Self {
            shape,
            head,
            cells,
            scores,
            max: running_max,
            sum: running_sum,
        } = self;
        let count = cells.indices.len();
        let padded = count.next_multiple_of(LANES);
        let scores = &mut scores[..padded];
        if shape.soft_cap != 0.0 {
            for scores in scores.chunks_exact_mut(LANES) {
                // SAFETY: 16 floats.
                unsafe {
                    let x = simd.load(scores.as_ptr());
                    simd.store(scores.as_mut_ptr(), capped(simd, x, shape.soft_cap));
                }
            }
        }
        if let Some(biases) = cells.biases {
            let slope = shape.slope(head);
            for (score, bias) in scores.iter_mut().zip(biases) {
                *score += bias * slope;
            }
        }
        scores[count..].fill(f32::NEG_INFINITY);
        let mut lanes = [0.0; LANES];
        let mut max = simd.splat(f32::NEG_INFINITY);
        for scores in scores.chunks_exact(LANES) {
            // SAFETY: 16 floats.
            max = simd.max(unsafe { simd.load(scores.as_ptr()) }, max);
        }
        // SAFETY: 16 lanes.
        unsafe { simd.store(lanes.as_mut_ptr(), max) };
        let old = *running_max;
        let max = lanes
            .iter()
            .fold(old, |max, &x| if x > max { x } else { max });
        *running_max = max;
        let max = baseline(simd, simd.splat(max));
        let mut sum = simd.splat(0.0);
        for scores in scores.chunks_exact_mut(LANES) {
            // SAFETY: 16 floats.
            unsafe {
                let weight = exp(simd, simd.sub(simd.load(scores.as_ptr()), max));
                simd.store(scores.as_mut_ptr(), weight);
                sum = simd.add(sum, weight);
            }
        }
        let mut factors = [0.0; LANES];
        // SAFETY: 16 lanes each.
        unsafe {
            simd.store(lanes.as_mut_ptr(), sum);
            simd.store(
                factors.as_mut_ptr(),
                exp(simd, simd.sub(simd.splat(old), max)),
            );
        }
        for half in [8, 4, 2, 1] {
            for lane in 0..half {
                lanes[lane] += lanes[lane + half];
            }
        }
        *running_sum = *running_sum * factors[0] + lanes[0];
        factors[0]
    }
}

/// Adds weighted values to vectors `index` to `index + D` of `H` heads' results.
///
/// To run it, the tensors must be valid, the rows values.
pub(super) struct AddValues<'a, V, const H: usize, const D: usize> {
    pub heads: &'a Heads<'a>,
    pub kind: V,
    pub index: usize,
    pub weights: &'a [f32],
    pub factors: &'a [f32],
    pub results: &'a mut [f32],
}

impl<V: Row, const H: usize, const D: usize> Kernel for AddValues<'_, V, H, D> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self {
            heads,
            kind,
            index,
            weights,
            factors,
            results,
        } = self;
        let rows = &heads.rows[..heads.count];
        let dim = heads.chunk.node.shape.value_dim;
        assert!((index + D) * LANES <= dim && results.len() >= H * dim);
        assert!(weights.len() >= H * BLOCK && factors.len() >= H);
        let weights = weights.as_ptr();
        let results = results[index * LANES..].as_mut_ptr();
        // SAFETY: the asserts; the values have `dim` values.
        unsafe {
            let mut sums = [[simd.splat(0.0); D]; H];
            for h in 0..H {
                let factor = simd.splat(factors[h]);
                for d in 0..D {
                    sums[h][d] = simd.mul(simd.load(results.add(h * dim + d * LANES)), factor);
                }
            }
            for (cell, &row) in rows.iter().enumerate() {
                let mut value = [simd.splat(0.0); D];
                for d in 0..D {
                    value[d] = kind.load(simd, row, index + d);
                }
                for h in 0..H {
                    let weight = simd.splat(*weights.add(h * BLOCK + cell));
                    for d in 0..D {
                        sums[h][d] = simd.fma(value[d], weight, sums[h][d]);
                    }
                }
            }
            for h in 0..H {
                for d in 0..D {
                    simd.store(results.add(h * dim + d * LANES), sums[h][d]);
                }
            }
        }
    }
}
