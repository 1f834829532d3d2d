//! Keys and values of a block of cells as floats.

use crate::attention::CacheType;
use crate::attention::cache::{F16Row, Q8Row, Row};
use crate::attention::cells::BLOCK;
use crate::simd::{Kernel, LANES, Simd};

/// Rows of a cache to be read as floats, `[dim / column][BLOCK][column]`.
pub(super) struct Rows<'a> {
    /// Of cell 0.
    pub start: *const u8,
    pub stride: usize,
    pub cells: &'a [usize],
    pub dim: usize,
    pub column: usize,
    pub floats: &'a mut [f32],
}

impl Rows<'_> {
    /// # Safety
    /// The rows of the cells can be read.
    pub unsafe fn read<S: Simd>(self, simd: S, kind: CacheType) {
        // SAFETY: forwarded.
        unsafe {
            match kind {
                CacheType::F16 => simd.run(ReadRows {
                    rows: self,
                    kind: F16Row,
                }),
                CacheType::Q8_0 => simd.run(ReadRows {
                    rows: self,
                    kind: Q8Row,
                }),
            }
        }
    }
}

/// To run it, the rows of the cells must be valid.
pub(super) struct ReadRows<'a, T> {
    pub rows: Rows<'a>,
    pub kind: T,
}

impl<T: Row> Kernel for ReadRows<'_, T> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Rows {
            start,
            stride,
            cells,
            dim,
            column,
            floats,
        } = self.rows;
        let columns = dim.div_ceil(column);
        assert!(cells.len() <= BLOCK && dim.is_multiple_of(LANES) && column.is_multiple_of(LANES));
        assert!(floats.len() >= columns * BLOCK * column);
        // A column of all cells after the other: its rows follow each other.
        for first in (0..dim).step_by(column) {
            let width = column.min(dim - first);
            let floats = &mut floats[first * BLOCK..];
            for (row, &cell) in floats.chunks_exact_mut(column).zip(cells) {
                let source = start.wrapping_add(cell * stride);
                for (i, vector) in row[..width].chunks_exact_mut(LANES).enumerate() {
                    // SAFETY: the row has `dim` values.
                    unsafe {
                        let x = self.kind.load(simd, source, first / LANES + i);
                        simd.store(vector.as_mut_ptr(), x);
                    }
                }
            }
        }
    }
}
