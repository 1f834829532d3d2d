//! Values that are not finite, in blocks of which some rows do not see all cells.
//!
//! A tile adds each of its cells to each of its rows, to those that do not see
//! the cell with a weight of 0. But 0 times infinity is not a number, and the
//! cell may be another request's: such cells are taken out, and added to the
//! rows that give them a weight.

use super::{COLUMN, Memory, Tile};
use crate::attention::cells::BLOCK;
use crate::simd::{Kernel, LANES, Simd};

/// Cells that were taken out: their places in the block and their values.
pub(super) struct Strays(Vec<(usize, Vec<f32>)>);

impl Strays {
    /// None of the cells.
    pub(super) const NONE: Strays = Strays(Vec::new());

    /// Takes the first `count` cells with values that are not finite out of
    /// the memory: zeros take their places.
    pub(super) fn take<S: Simd>(simd: S, memory: &mut Memory, dim: usize, count: usize) -> Strays {
        let values = &mut *memory.values;
        // SAFETY: the kernel checks its memory.
        if unsafe { simd.run(AreFinite { values, dim, count }) } {
            return Strays::NONE;
        }
        let mut strays = Vec::new();
        for place in 0..count {
            let parts = || {
                (0..dim)
                    .step_by(COLUMN)
                    .map(|first| part(first, dim, place))
            };
            let row: Vec<f32> = parts().flat_map(|part| values[part].to_vec()).collect();
            if !row.iter().all(|x| x.is_finite()) {
                parts().for_each(|part| values[part].fill(0.0));
                strays.push((place, row));
            }
        }
        Strays(strays)
    }

    /// Adds what was taken to the results.
    pub(super) fn add(&self, tile: &Tile, memory: &mut Memory) {
        let (lanes, dim) = (tile.lanes(), tile.node.shape.value_dim);
        for (place, row) in &self.0 {
            let weights = &memory.scores[place * lanes..][..lanes];
            for (results, &weight) in memory.results.chunks_exact_mut(dim).zip(weights) {
                if weight != 0.0 {
                    for (result, value) in results.iter_mut().zip(row) {
                        *result += weight * value;
                    }
                }
            }
        }
    }
}

/// Where the values from `first` on are, up to the next column.
fn part(first: usize, dim: usize, place: usize) -> std::ops::Range<usize> {
    let start = first * BLOCK + place * COLUMN;
    start..start + COLUMN.min(dim - first)
}

/// Whether the values of the first `count` cells are finite.
struct AreFinite<'a> {
    values: &'a [f32],
    dim: usize,
    count: usize,
}

impl Kernel for AreFinite<'_> {
    type Output = bool;

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) -> bool {
        let zero = simd.splat(0.0);
        let mut sums = [zero; COLUMN / LANES];
        for first in (0..self.dim).step_by(COLUMN) {
            for place in 0..self.count {
                let values = &self.values[part(first, self.dim, place)];
                for (sum, values) in sums.iter_mut().zip(values.chunks_exact(LANES)) {
                    // SAFETY: 16 floats.
                    *sum = simd.fma(unsafe { simd.load(values.as_ptr()) }, zero, *sum);
                }
            }
        }
        let mut lanes = [0.0; LANES];
        let all = |sum: &S::Vector| {
            // SAFETY: 16 floats.
            unsafe { simd.store(lanes.as_mut_ptr(), *sum) };
            lanes.iter().all(|&x| x == 0.0)
        };
        sums.iter().all(all)
    }
}
