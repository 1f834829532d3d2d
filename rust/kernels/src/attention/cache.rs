//! Rows of a cache as floats.

use super::CacheType;
use crate::simd::{LANES, Simd};

/// Values of a Q8_0 block.
const Q8_VALUES: usize = 32;
/// Bytes of a Q8_0 block: an F16 scale, then the values.
const Q8_BYTES: usize = 2 + Q8_VALUES;

impl CacheType {
    /// Bytes of a row of `dim` values, a multiple of 32.
    pub fn row_bytes(self, dim: usize) -> usize {
        match self {
            CacheType::F16 => 2 * dim,
            CacheType::Q8_0 => dim / Q8_VALUES * Q8_BYTES,
        }
    }
}

/// How to read a row of a [`CacheType`].
pub(super) trait Row: Copy {
    /// Values 16 * `index` and following.
    ///
    /// # Safety
    /// The row has them.
    unsafe fn load<S: Simd>(self, simd: S, row: *const u8, index: usize) -> S::Vector;
}

/// [`CacheType::F16`].
#[derive(Clone, Copy)]
pub(super) struct F16Row;

impl Row for F16Row {
    #[inline(always)]
    unsafe fn load<S: Simd>(self, simd: S, row: *const u8, index: usize) -> S::Vector {
        // SAFETY: 2 bytes a value.
        unsafe { simd.load_f16(row.add(2 * LANES * index).cast()) }
    }
}

/// [`CacheType::Q8_0`].
#[derive(Clone, Copy)]
pub(super) struct Q8Row;

impl Row for Q8Row {
    #[inline(always)]
    unsafe fn load<S: Simd>(self, simd: S, row: *const u8, index: usize) -> S::Vector {
        const VECTORS: usize = Q8_VALUES / LANES;
        // SAFETY: the vector is part of a block, which begins with its scale.
        unsafe {
            let block = row.add(index / VECTORS * Q8_BYTES);
            let scale = simd.f16(block.cast::<u16>().read_unaligned());
            let codes = simd.load_i8(block.add(2 + index % VECTORS * LANES).cast());
            simd.mul(codes, simd.splat(scale))
        }
    }
}
