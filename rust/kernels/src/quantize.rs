//! Activations in 8 bits: for each 32 values a scale and signed bytes, as
//! ggml's Q8_0 and Q8_1 have them, but with an f32 scale and exact sums.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::marker::PhantomData;
use std::ops::Range;

use crate::dispatch::Tier;
use crate::matmul::{BLOCK, Spec};

/// 32 quantized values of a row: a line of the cache.
///
/// Weights without an offset are what instructions cannot multiply with, so
/// products begin with `- offset * (sum of the codes)`. That is stored for each
/// offset there is, because a broadcast from memory is free and a shift is not.
#[derive(Clone, Copy, PartialEq, Debug)]
#[repr(C)]
pub(crate) struct ActivationBlock {
    /// Value = scale * code.
    pub scale: f32,
    /// Scale * (sum of the codes): what minima of weights are multiplied by.
    pub scaled_sum: f32,
    /// - (sum of the codes) << 3, 4 and 7.
    pub start_3: i32,
    pub start_4: i32,
    pub start_7: i32,
    /// - (sum of the first 16 codes, of the others) << 5.
    pub starts_5: [i32; 2],
    unused: i32,
    pub codes: [i8; BLOCK],
}

/// Rows of f32.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// Row i starts at `i * stride`.
    pub data: &'a [f32],
    /// Floats from one row to the next.
    pub stride: usize,
}

/// Quantized activation rows in memory that several threads share.
#[derive(Clone, Copy)]
pub struct Activations<'a> {
    /// Block b of row i is at `b * step + i`: a tile of rows reads along.
    blocks: *mut ActivationBlock,
    rows: usize,
    cols: usize,
    step: usize,
    memory: PhantomData<&'a mut [u8]>,
}

// SAFETY: `Activations::new` asks for the absence of data races.
unsafe impl Send for Activations<'_> {}
// SAFETY: as above.
unsafe impl Sync for Activations<'_> {}

impl<'a> Activations<'a> {
    /// Bytes of memory that `rows` rows of `cols` values need.
    pub fn bytes(rows: usize, cols: usize) -> usize {
        step(rows) * cols.div_ceil(BLOCK) * size_of::<ActivationBlock>()
    }

    /// Alignment of the memory (64 is faster).
    pub const ALIGN: usize = align_of::<ActivationBlock>();

    /// `rows` rows of `cols` values, a multiple of 32, in `memory`, where they
    /// may be already: every thread makes this value for itself.
    ///
    /// # Safety
    /// `memory` is aligned to [`ALIGN`](Self::ALIGN) and valid for
    /// [`bytes`](Self::bytes) bytes for `'a`, and used for nothing else. No
    /// two threads quantize the same row at once, and no product reads a row
    /// before it is quantized or meanwhile.
    pub unsafe fn new(memory: *mut u8, rows: usize, cols: usize) -> Self {
        assert!(cols.is_multiple_of(BLOCK));
        assert!(memory.addr().is_multiple_of(Self::ALIGN));
        Activations {
            blocks: memory.cast(),
            rows,
            cols,
            step: step(rows),
            memory: PhantomData,
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values of a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Blocks from one block of a row to its next.
    pub(crate) fn step(&self) -> usize {
        self.step
    }

    /// The first block of a row.
    pub(crate) fn row(&self, row: usize) -> *const ActivationBlock {
        assert!(row < self.rows);
        // SAFETY: a block of our memory.
        unsafe { self.blocks.add(row) }
    }

    /// Quantizes the rows `range` of `x`, which has all rows.
    pub fn quantize(&self, tier: Tier, x: Rows, range: Range<usize>) {
        for row in range {
            self.quantize_row(tier, row, &x.data[row * x.stride..][..self.cols]);
        }
    }

    /// Quantizes row `row`.
    pub fn quantize_row(&self, tier: Tier, row: usize, values: &[f32]) {
        assert!(row < self.rows && values.len() == self.cols);
        assert!(tier.is_available());
        // SAFETY: a block of our memory; row < rows.
        let target = unsafe { self.blocks.add(row) };
        let values = values.as_chunks::<BLOCK>().0;
        // SAFETY: the tier is available; there are cols / 32 blocks, which
        // nobody else uses now.
        unsafe {
            match tier {
                #[cfg(target_arch = "x86_64")]
                Tier::Avx2 | Tier::AvxVnni | Tier::Avx512Vnni => {
                    quantize_row_avx2(values, target, self.step);
                }
                _ => write_row(values, target, self.step, quantize),
            }
        }
    }
}

/// Writes the quantized blocks of a row, block b to `target + b * step`.
///
/// # Safety
/// They can be written.
#[inline(always)]
unsafe fn write_row(
    values: &[[f32; BLOCK]],
    target: *mut ActivationBlock,
    step: usize,
    quantize: impl Fn(&[f32; BLOCK]) -> ActivationBlock,
) {
    for (index, values) in values.iter().enumerate() {
        // SAFETY: as the caller promises.
        unsafe { target.add(index * step).write(quantize(values)) };
    }
}

/// A function of its own for all blocks: what one makes of a block is written
/// where it belongs, not copied.
///
/// # Safety
/// As [`write_row`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn quantize_row_avx2(values: &[[f32; BLOCK]], target: *mut ActivationBlock, step: usize) {
    // SAFETY: forwarded.
    unsafe { write_row(values, target, step, |values| quantize_avx2(values)) }
}

/// Blocks from one block of a row to its next: not a power of two of cache
/// lines, or all blocks of a row would compete for the same few places.
fn step(rows: usize) -> usize {
    if rows < 8 { rows } else { rows | 1 }
}

impl ActivationBlock {
    /// What the sum over a block, or over one of its halves if these have
    /// scales of their own, begins with for weights of this type.
    #[inline]
    pub fn start(&self, spec: Spec, half: usize) -> i32 {
        match spec.shift {
            None => 0,
            Some(3) => self.start_3,
            Some(4) => self.start_4,
            Some(5) => self.starts_5[half],
            Some(_) => self.start_7,
        }
    }

    #[inline]
    fn new(scale: f32, codes: [i8; BLOCK], half_sum: i32, sum: i32) -> Self {
        ActivationBlock {
            scale,
            scaled_sum: scale * sum as f32,
            start_3: -sum << 3,
            start_4: -sum << 4,
            start_7: -sum << 7,
            starts_5: [-half_sum << 5, (half_sum - sum) << 5],
            unused: 0,
            codes,
        }
    }
}

/// Scale and its inverse for values up to `largest`, which is given in bits:
/// as integers, what is not a number is the largest of all. Zero for values
/// whose inverse would not be finite; where a value is not, the scale is not a
/// number, nor is then any product of the row.
#[inline]
fn scales(largest: u32) -> (f32, f32) {
    let largest = f32::from_bits(largest);
    if largest < 1e-35 {
        (0.0, 0.0)
    } else if largest.is_finite() {
        (largest / 127.0, 127.0 / largest)
    } else {
        (f32::NAN, 0.0)
    }
}

#[inline]
fn quantize(values: &[f32; BLOCK]) -> ActivationBlock {
    let largest = values.map(|x| x.abs().to_bits()).into_iter().max();
    let (scale, inverse) = scales(largest.unwrap_or(0));
    let codes = values.map(|x| (x * inverse).round_ties_even() as i8);
    let sum = |codes: &[i8]| codes.iter().map(|&code| i32::from(code)).sum();
    ActivationBlock::new(scale, codes, sum(&codes[..BLOCK / 2]), sum(&codes))
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,fma")]
fn quantize_avx2(values: &[f32; BLOCK]) -> ActivationBlock {
    let sign = _mm256_set1_ps(-0.0);
    // SAFETY: i is at most 3: 8 values from 8 i on are in the block.
    let x: [__m256; 4] =
        std::array::from_fn(|i| unsafe { _mm256_loadu_ps(values.as_ptr().add(8 * i)) });
    let abs = x.map(|x| _mm256_castps_si256(_mm256_andnot_ps(sign, x)));
    let [low, high] = [[abs[0], abs[1]], [abs[2], abs[3]]].map(|[a, b]| _mm256_max_epi32(a, b));
    let max = _mm256_max_epi32(low, high);
    let max = _mm_max_epi32(
        _mm256_castsi256_si128(max),
        _mm256_extracti128_si256::<1>(max),
    );
    let max = _mm_max_epi32(max, _mm_unpackhi_epi64(max, max));
    let max = _mm_max_epi32(max, _mm_shuffle_epi32::<1>(max));
    let (scale, inverse) = scales(_mm_cvtsi128_si32(max).cast_unsigned());
    let inverse = _mm256_set1_ps(inverse);
    let q = x.map(|x| _mm256_cvtps_epi32(_mm256_mul_ps(x, inverse)));
    let halves =
        [_mm256_add_epi32(q[0], q[1]), _mm256_add_epi32(q[2], q[3])].map(|sum| sum_epi32(sum));
    // The packs work within 128-bit lanes; the permutation restores the order.
    let low = _mm256_packs_epi32(q[0], q[1]);
    let high = _mm256_packs_epi32(q[2], q[3]);
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let packed = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(low, high), order);
    let mut codes = [0; BLOCK];
    // SAFETY: 32 bytes.
    unsafe { _mm256_storeu_si256(codes.as_mut_ptr().cast(), packed) };
    ActivationBlock::new(scale, codes, halves[0], halves[0] + halves[1])
}

#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2")]
fn sum_epi32(x: __m256i) -> i32 {
    let x = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
    let x = _mm_add_epi32(x, _mm_unpackhi_epi64(x, x));
    _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32::<1>(x)))
}
