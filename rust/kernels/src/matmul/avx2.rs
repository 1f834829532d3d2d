//! AVX2, with or without VNNI: 8 outputs a register, 4 registers a group. The
//! codes of a block do not fit into the registers: they are unpacked into the
//! first-level cache and multiplied with 4 rows at a time.

// Indices address lanes and rows of several arrays at once.
#![allow(clippy::needless_range_loop)]

mod unpack;

use std::arch::x86_64::*;

use super::Tile;
use super::format::{Format, GROUP, WeightType, with_format};
use crate::quantize::ActivationBlock;
use unpack::unpack;

/// Rows that are multiplied at a time.
const ROWS: usize = 4;

/// # Safety
/// See [`Tile`]; [`Tier::Avx2`](crate::dispatch::Tier), or with `VNNI`
/// [`Tier::AvxVnni`](crate::dispatch::Tier), is available.
pub(crate) unsafe fn multiply<const VNNI: bool>(kind: WeightType, tile: &mut Tile) {
    // SAFETY: as the caller promises.
    unsafe {
        if VNNI {
            with_format!(kind, multiply_vnni(tile));
        } else {
            with_format!(kind, multiply_avx2(tile));
        }
    }
}

/// # Safety
/// As [`multiply`].
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
unsafe fn multiply_vnni<F: Format>(tile: &mut Tile) {
    // SAFETY: as the caller promises.
    unsafe { multiply_format::<F, true>(tile) }
}

/// # Safety
/// As [`multiply`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply_avx2<F: Format>(tile: &mut Tile) {
    // SAFETY: as the caller promises.
    unsafe { multiply_format::<F, false>(tile) }
}

/// A block of k of the weights of 8 outputs.
struct Weights {
    /// By steps of 4 values. Without VNNI codes with the offset 128 are signed.
    codes: [__m256i; 8],
    /// Of the first and the second half of the block.
    scales: [__m256; 2],
    minima: __m256,
}

/// Registers of a group.
const LANES: usize = GROUP / 8;

/// Registers that are multiplied at a time.
const PAIR: usize = 2;

/// # Safety
/// As [`multiply`].
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn multiply_format<F: Format, const VNNI: bool>(tile: &mut Tile) {
    tile.sums.fill([0.0; GROUP]);
    for (index, chunk) in tile.weights.chunks_exact(F::SPEC.chunk()).enumerate() {
        for block in 0..F::SPEC.blocks {
            prefetch::<F>(chunk, block);
            let at = (index * F::SPEC.blocks + block) * tile.step;
            // SAFETY: a chunk has its blocks, and so have the inputs.
            unsafe {
                let unpacked = |lanes| unpack::<F, VNNI>(chunk.as_ptr(), block, lanes);
                match (tile.inputs, &mut *tile.sums) {
                    (&[input], [sums]) => {
                        for lanes in 0..LANES {
                            let weights = [unpacked(lanes)];
                            let sums = std::array::from_mut(sums);
                            let x = [&*input.add(at)];
                            accumulate::<F, VNNI, 1, 1, 0>(&weights, lanes, x, sums);
                            if F::SPEC.is_split() {
                                accumulate::<F, VNNI, 1, 1, 1>(&weights, lanes, x, sums);
                            }
                        }
                    }
                    (inputs, sums) => {
                        for first in (0..LANES).step_by(PAIR) {
                            let weights = [unpacked(first), unpacked(first + 1)];
                            // A half after the other: its codes can stay in registers.
                            rows::<F, VNNI, 0>(&weights, first, inputs, at, sums);
                            if F::SPEC.is_split() {
                                rows::<F, VNNI, 1>(&weights, first, inputs, at, sums);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Adds the products of a pair of weights, or of one half of them, and the
/// blocks `at` of all inputs.
///
/// # Safety
/// The inputs have these blocks; with `VNNI` it is there.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows<F: Format, const VNNI: bool, const HALF: usize>(
    weights: &[Weights; PAIR],
    first: usize,
    inputs: &[*const ActivationBlock],
    at: usize,
    sums: &mut [[f32; GROUP]],
) {
    let (inputs, last_inputs) = inputs.as_chunks::<ROWS>();
    let (sums, last_sums) = sums.as_chunks_mut::<ROWS>();
    // SAFETY: as the caller promises.
    unsafe {
        for (inputs, sums) in inputs.iter().zip(sums) {
            let x = inputs.map(|input| &*input.add(at));
            accumulate::<F, VNNI, ROWS, PAIR, HALF>(weights, first, x, sums);
        }
        for (input, sums) in last_inputs.iter().zip(last_sums) {
            let sums = std::array::from_mut(sums);
            accumulate::<F, VNNI, 1, PAIR, HALF>(weights, first, [&*input.add(at)], sums);
        }
    }
}

/// Adds the products of `L` registers of weights from `first` on and `N` rows:
/// what one scale applies to, which is a half of the block if halves have scales
/// of their own, else all of it.
///
/// # Safety
/// With `VNNI` it is there.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn accumulate<
    F: Format,
    const VNNI: bool,
    const N: usize,
    const L: usize,
    const HALF: usize,
>(
    weights: &[Weights; L],
    first: usize,
    x: [&ActivationBlock; N],
    sums: &mut [[f32; GROUP]; N],
) {
    let dots = match (VNNI, F::SPEC.shift) {
        // SAFETY: as the caller promises.
        (true, _) => unsafe { dots_vnni::<F, N, L, HALF>(weights, x) },
        (false, Some(7)) => dots_signed::<N, L>(weights, x),
        (false, _) => dots_unsigned::<F, N, L, HALF>(weights, x),
    };
    let mut totals = [[_mm256_setzero_ps(); L]; N];
    for row in 0..N {
        let x_scale = _mm256_set1_ps(x[row].scale);
        for lane in 0..L {
            let sum = &sums[row].as_chunks::<8>().0[first + lane];
            let scale = _mm256_mul_ps(weights[lane].scales[HALF], x_scale);
            let dot = _mm256_cvtepi32_ps(dots[row][lane]);
            // SAFETY: 8 floats.
            let total = _mm256_fmadd_ps(dot, scale, unsafe { _mm256_loadu_ps(sum.as_ptr()) });
            totals[row][lane] = if F::SPEC.has_minimum() {
                let x_sum = _mm256_set1_ps(x[row].scaled_sum);
                _mm256_fmadd_ps(weights[lane].minima, x_sum, total)
            } else {
                total
            };
        }
    }
    for row in 0..N {
        for lane in 0..L {
            let sum = &mut sums[row].as_chunks_mut::<8>().0[first + lane];
            // SAFETY: 8 floats.
            unsafe { _mm256_storeu_ps(sum.as_mut_ptr(), totals[row][lane]) };
        }
    }
}

/// Word `step` of the codes in all lanes.
#[inline]
#[target_feature(enable = "avx2")]
fn broadcast(x: &ActivationBlock, step: usize) -> __m256i {
    let word = x.codes.as_chunks::<4>().0[step];
    _mm256_set1_epi32(i32::from_le_bytes(word.map(|code| code as u8)))
}

/// The integer sums over a block or over one of its halves.
#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn dots_vnni<F: Format, const N: usize, const L: usize, const HALF: usize>(
    weights: &[Weights; L],
    x: [&ActivationBlock; N],
) -> [[__m256i; L]; N] {
    let mut dots = [[_mm256_setzero_si256(); L]; N];
    for row in 0..N {
        dots[row] = [_mm256_set1_epi32(x[row].start(F::SPEC, HALF)); L];
    }
    for step in steps::<F>(HALF) {
        for row in 0..N {
            let word = broadcast(x[row], step);
            for lane in 0..L {
                let dot = &mut dots[row][lane];
                *dot = _mm256_dpbusd_avx_epi32(*dot, weights[lane].codes[step], word);
            }
        }
    }
    dots
}

/// The same without VNNI for codes up to 63: products are added in 16 bits for
/// as many steps as cannot overflow (2 * 127 * code a step).
#[inline]
#[target_feature(enable = "avx2")]
fn dots_unsigned<F: Format, const N: usize, const L: usize, const HALF: usize>(
    weights: &[Weights; L],
    x: [&ActivationBlock; N],
) -> [[__m256i; L]; N] {
    let mut dots = [[_mm256_setzero_si256(); L]; N];
    for row in 0..N {
        dots[row] = [_mm256_set1_epi32(x[row].start(F::SPEC, HALF)); L];
    }
    let ones = _mm256_set1_epi16(1);
    let safe_steps = 1 << (7 - F::SPEC.bits);
    for first in steps::<F>(HALF).step_by(safe_steps) {
        let mut short = [[_mm256_setzero_si256(); L]; N];
        for step in first..first + safe_steps {
            for row in 0..N {
                let word = broadcast(x[row], step);
                for lane in 0..L {
                    let products = _mm256_maddubs_epi16(weights[lane].codes[step], word);
                    short[row][lane] = _mm256_add_epi16(short[row][lane], products);
                }
            }
        }
        for row in 0..N {
            for lane in 0..L {
                let wide = _mm256_madd_epi16(short[row][lane], ones);
                dots[row][lane] = _mm256_add_epi32(dots[row][lane], wide);
            }
        }
    }
    dots
}

/// The same for signed codes: the sign goes over to the activations. A sum of
/// two products is at most 2 * 128 * 127: one step fits into 16 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn dots_signed<const N: usize, const L: usize>(
    weights: &[Weights; L],
    x: [&ActivationBlock; N],
) -> [[__m256i; L]; N] {
    let mut dots = [[_mm256_setzero_si256(); L]; N];
    let ones = _mm256_set1_epi16(1);
    for step in 0..8 {
        for lane in 0..L {
            let codes = weights[lane].codes[step];
            let magnitudes = _mm256_abs_epi8(codes);
            for row in 0..N {
                let word = _mm256_sign_epi8(broadcast(x[row], step), codes);
                let wide = _mm256_madd_epi16(_mm256_maddubs_epi16(magnitudes, word), ones);
                dots[row][lane] = _mm256_add_epi32(dots[row][lane], wide);
            }
        }
    }
    dots
}

/// The steps that `half` stands for: all if halves share a scale.
#[inline]
fn steps<F: Format>(half: usize) -> std::ops::Range<usize> {
    if F::SPEC.is_split() {
        4 * half..4 * half + 4
    } else {
        0..8
    }
}

/// Asks for the weights that come some blocks later.
#[inline]
fn prefetch<F: Format>(chunk: &[u8], block: usize) {
    const AHEAD: usize = 4096;
    let bytes = F::SPEC.chunk() / F::SPEC.blocks;
    let start = chunk.as_ptr().wrapping_add(block * bytes + AHEAD);
    for line in 0..bytes.div_ceil(64) {
        // SAFETY: prefetches of any address are allowed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(64 * line).cast()) };
    }
}
