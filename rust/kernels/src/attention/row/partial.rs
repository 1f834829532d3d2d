//! The result of some of the cells that a row sees.

use crate::attention::Shape;
use crate::attention::math::final_factors;
use crate::attention::node::{Group, Node};
use crate::simd::math::exp;
use crate::simd::{Kernel, LANES, Simd};

/// Floats of a [`Partial`].
pub(in crate::attention) fn partial_floats(shape: &Shape) -> usize {
    2 * LANES + shape.group_heads() * shape.value_dim
}

/// The softmax over some of the cells, and its weighted values.
pub(in crate::attention) struct Partial<'a> {
    /// `[head]`: largest score.
    pub maxima: &'a mut [f32],
    /// `[head]`: sum of the weights relative to the maximum.
    pub sums: &'a mut [f32],
    /// `[head][value_dim]`: weighted sum of the values.
    pub results: &'a mut [f32],
}

impl<'a> Partial<'a> {
    /// In memory that may hold an earlier one.
    pub(in crate::attention) fn new(floats: &'a mut [f32]) -> Self {
        let (maxima, rest) = floats.split_at_mut(LANES);
        let (sums, results) = rest.split_at_mut(LANES);
        Partial {
            maxima,
            sums,
            results,
        }
    }

    /// No cells.
    pub(in crate::attention) fn clear(&mut self) {
        self.maxima.fill(f32::NEG_INFINITY);
        self.sums.fill(0.0);
        self.results.fill(0.0);
    }

    /// Adds the cells of another one.
    pub(in crate::attention) fn merge<S: Simd>(
        &mut self,
        simd: S,
        other: &Partial<'a>,
        group: Group,
        shape: &Shape,
    ) {
        let (heads, dim) = (group.count, shape.value_dim);
        // SAFETY: the kernel checks its memory.
        unsafe {
            simd.run(Merge {
                sum: self,
                part: other,
                heads,
                dim,
            })
        }
    }

    /// Writes the results of a row.
    ///
    /// # Safety
    /// The tensors are valid, and nobody else uses the results of the row and
    /// these heads.
    pub(in crate::attention) unsafe fn write<S: Simd>(
        &self,
        simd: S,
        node: Node,
        row: usize,
        group: Group,
    ) {
        // SAFETY: forwarded.
        unsafe {
            simd.run(Write {
                partial: self,
                node,
                row,
                group,
            })
        }
    }
}

/// Adds the cells of `part` to `sum`.
struct Merge<'a, 'm> {
    sum: &'a mut Partial<'m>,
    part: &'a Partial<'m>,
    heads: usize,
    dim: usize,
}

impl Kernel for Merge<'_, '_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self {
            sum,
            part,
            heads,
            dim,
        } = self;
        let mut factors = [[0.0; LANES]; 2];
        // SAFETY: maxima, sums and factors have 16 lanes each.
        unsafe {
            let a = simd.load(sum.maxima.as_ptr());
            let b = simd.load(part.maxima.as_ptr());
            let max = simd.max(a, b);
            simd.store(sum.maxima.as_mut_ptr(), max);
            let hidden = simd.splat(f32::NEG_INFINITY);
            let max = simd.if_less(hidden, max, max, simd.splat(0.0));
            let [a, b] = [exp(simd, simd.sub(a, max)), exp(simd, simd.sub(b, max))];
            simd.store(factors[0].as_mut_ptr(), a);
            simd.store(factors[1].as_mut_ptr(), b);
            let total = simd.mul(simd.load(sum.sums.as_ptr()), a);
            let total = simd.fma(simd.load(part.sums.as_ptr()), b, total);
            simd.store(sum.sums.as_mut_ptr(), total);
        }
        for head in 0..heads {
            let [a, b] = factors.map(|factors| simd.splat(factors[head]));
            let ours = &mut sum.results[head * dim..][..dim];
            let theirs = &part.results[head * dim..][..dim];
            for (ours, theirs) in ours.chunks_exact_mut(LANES).zip(theirs.chunks_exact(LANES)) {
                // SAFETY: 16 floats each.
                unsafe {
                    let x = simd.mul(simd.load(ours.as_ptr()), a);
                    let x = simd.fma(simd.load(theirs.as_ptr()), b, x);
                    simd.store(ours.as_mut_ptr(), x);
                }
            }
        }
    }
}

/// Writes the results of a row.
///
/// To run it, the tensors must be valid, and nobody else may use the results of
/// the row and these heads.
struct Write<'a, 'm> {
    partial: &'a Partial<'m>,
    node: Node<'a>,
    row: usize,
    group: Group,
}

impl Kernel for Write<'_, '_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self {
            partial,
            node,
            row,
            group,
        } = self;
        let dim = node.shape.value_dim;
        let mut sinks = [0.0; LANES];
        let mut has_sinks = false;
        for (head, sink) in sinks[..group.count].iter_mut().enumerate() {
            // SAFETY: a head of the group.
            if let Some(x) = unsafe { node.sink(group.first + head) } {
                (*sink, has_sinks) = (x, true);
            }
        }
        let mut factors = [0.0; LANES];
        // SAFETY: maxima, sums, sinks and factors have 16 lanes each.
        unsafe {
            let [maxima, sums] =
                [partial.maxima.as_ptr(), partial.sums.as_ptr()].map(|lanes| simd.load(lanes));
            let sinks = has_sinks.then(|| simd.load(sinks.as_ptr()));
            simd.store(
                factors.as_mut_ptr(),
                final_factors(simd, maxima, sums, sinks),
            );
        }
        for (head, results) in partial
            .results
            .chunks_exact(dim)
            .take(group.count)
            .enumerate()
        {
            let output = node.output(row, group.first + head);
            let factor = simd.splat(factors[head]);
            for (index, results) in results.chunks_exact(LANES).enumerate() {
                // SAFETY: 16 of the results.
                unsafe {
                    let x = simd.mul(simd.load(results.as_ptr()), factor);
                    simd.store(output.add(index * LANES), x);
                }
            }
        }
    }
}
