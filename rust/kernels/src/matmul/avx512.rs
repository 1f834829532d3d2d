//! AVX-512 VNNI: 16 outputs a register, 2 registers a group.

// Indices address lanes and rows of several arrays at once.
#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::Tile;
use super::format::{Format, GROUP, IQ4_NL_CODES, Scales, WeightType, with_format};
use crate::quantize::ActivationBlock;

/// # Safety
/// See [`Tile`]; [`Tier::Avx512Vnni`](crate::dispatch::Tier) is available.
pub(crate) unsafe fn multiply(kind: WeightType, tile: &mut Tile) {
    // SAFETY: as the caller promises.
    unsafe { with_format!(kind, dispatch(tile)) }
}

/// # Safety
/// As [`multiply`].
unsafe fn dispatch<F: Format>(tile: &mut Tile) {
    // SAFETY: as the caller promises.
    unsafe {
        match tile.inputs.len() {
            1 => one::<F>(tile),
            _ => many::<F>(tile),
        }
    }
}

/// A block of k of the weights of a group, for lanes 0..16 and 16..32.
struct Weights {
    /// By steps of 4 values.
    codes: [[__m512i; 2]; 8],
    /// Of the first and the second half of the block.
    scales: [[__m512; 2]; 2],
    minima: [__m512; 2],
}

/// A single row, whose sums stay in registers.
///
/// # Safety
/// As [`multiply`]; the tile has one row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn one<F: Format>(tile: &mut Tile) {
    let input = tile.inputs[0];
    let mut sums = [_mm512_setzero_ps(); 2];
    for (index, chunk) in tile.weights.chunks_exact(F::SPEC.chunk()).enumerate() {
        for block in 0..F::SPEC.blocks {
            prefetch::<F>(chunk, block);
            // SAFETY: a chunk has its blocks, and so have the inputs.
            unsafe {
                let weights = unpack::<F>(chunk.as_ptr(), block);
                let x = input.add((index * F::SPEC.blocks + block) * tile.step);
                sums = accumulate::<F>(&weights, &*x, sums);
            }
        }
    }
    store(&mut tile.sums[0], sums);
}

/// Rows whose sums stay in the first-level cache: the registers hold weights.
///
/// # Safety
/// As [`multiply`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn many<F: Format>(tile: &mut Tile) {
    tile.sums.fill([0.0; GROUP]);
    for (index, chunk) in tile.weights.chunks_exact(F::SPEC.chunk()).enumerate() {
        for block in 0..F::SPEC.blocks {
            prefetch::<F>(chunk, block);
            // SAFETY: as in `one`.
            unsafe {
                let weights = unpack::<F>(chunk.as_ptr(), block);
                let at = (index * F::SPEC.blocks + block) * tile.step;
                for (sums, &input) in tile.sums.iter_mut().zip(tile.inputs) {
                    let result = accumulate::<F>(&weights, &*input.add(at), load(sums));
                    store(sums, result);
                }
            }
        }
    }
}

/// Adds the products of a block of weights and a block of activations.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn accumulate<F: Format>(
    weights: &Weights,
    x: &ActivationBlock,
    mut sums: [__m512; 2],
) -> [__m512; 2] {
    let x_scale = _mm512_set1_ps(x.scale);
    let words = x.codes.as_chunks::<4>().0;
    let halves = if F::SPEC.is_split() { 2 } else { 1 };
    for half in 0..halves {
        // Two chains each: half the latency of one.
        let start = _mm512_set1_epi32(x.start(F::SPEC, half));
        let mut dots = [[start; 2], [_mm512_setzero_si512(); 2]];
        for step in half * 8 / halves..(half + 1) * 8 / halves {
            let word = i32::from_le_bytes(words[step].map(|code| code as u8));
            let word = _mm512_set1_epi32(word);
            for lanes in 0..2 {
                let dot = &mut dots[step % 2][lanes];
                *dot = _mm512_dpbusd_epi32(*dot, weights.codes[step][lanes], word);
            }
        }
        for lanes in 0..2 {
            let dot = _mm512_cvtepi32_ps(_mm512_add_epi32(dots[0][lanes], dots[1][lanes]));
            let scale = _mm512_mul_ps(weights.scales[half][lanes], x_scale);
            sums[lanes] = _mm512_fmadd_ps(dot, scale, sums[lanes]);
        }
    }
    if F::SPEC.has_minimum() {
        let sum = _mm512_set1_ps(x.scaled_sum);
        for lanes in 0..2 {
            sums[lanes] = _mm512_fmadd_ps(weights.minima[lanes], sum, sums[lanes]);
        }
    }
    sums
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(sums: &[f32; GROUP]) -> [__m512; 2] {
    // SAFETY: 32 floats.
    unsafe {
        [
            _mm512_loadu_ps(sums.as_ptr()),
            _mm512_loadu_ps(sums.as_ptr().add(16)),
        ]
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(target: &mut [f32; GROUP], sums: [__m512; 2]) {
    // SAFETY: 32 floats.
    unsafe {
        _mm512_storeu_ps(target.as_mut_ptr(), sums[0]);
        _mm512_storeu_ps(target.as_mut_ptr().add(16), sums[1]);
    }
}

/// Asks for the weights that come some blocks later: a single row leaves the
/// memory no time to rest.
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

/// # Safety
/// `chunk` points to a chunk.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn unpack<F: Format>(chunk: *const u8, block: usize) -> Weights {
    let spec = F::SPEC;
    // SAFETY: a chunk has a header and the high and low bits of its blocks.
    unsafe {
        let high = chunk.add(spec.header() + block * (spec.high() + spec.low()));
        let (scales, minima) = unpack_scales::<F>(chunk, block);
        Weights {
            codes: unpack_codes::<F>(high, high.add(spec.high())),
            scales,
            minima,
        }
    }
}

/// # Safety
/// `high` and `low` point to the bits of a block.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn unpack_codes<F: Format>(high: *const u8, low: *const u8) -> [[__m512i; 2]; 8] {
    // SAFETY: the callers below stay within the 64-byte pieces of a block.
    let load =
        |from: *const u8, index: usize| unsafe { _mm512_loadu_si512(from.add(64 * index).cast()) };
    let mut codes = [[_mm512_setzero_si512(); 2]; 8];
    for lanes in 0..2 {
        if F::SPEC.bits == 8 {
            for step in 0..8 {
                codes[step][lanes] = load(low, 2 * step + lanes);
            }
            continue;
        }
        let mask = _mm512_set1_epi8(0x0f);
        for step in 0..4 {
            let nibbles = load(low, 2 * step + lanes);
            codes[step][lanes] = _mm512_and_si512(nibbles, mask);
            codes[step + 4][lanes] = _mm512_and_si512(_mm512_srli_epi16::<4>(nibbles), mask);
        }
        if F::SPEC.bits == 5 {
            let bits = load(high, lanes);
            codes[0][lanes] = or_masked::<0x10>(codes[0][lanes], _mm512_slli_epi16::<4>(bits));
            codes[1][lanes] = or_masked::<0x10>(codes[1][lanes], _mm512_slli_epi16::<3>(bits));
            codes[2][lanes] = or_masked::<0x10>(codes[2][lanes], _mm512_slli_epi16::<2>(bits));
            codes[3][lanes] = or_masked::<0x10>(codes[3][lanes], _mm512_slli_epi16::<1>(bits));
            codes[4][lanes] = or_masked::<0x10>(codes[4][lanes], bits);
            codes[5][lanes] = or_masked::<0x10>(codes[5][lanes], _mm512_srli_epi16::<1>(bits));
            codes[6][lanes] = or_masked::<0x10>(codes[6][lanes], _mm512_srli_epi16::<2>(bits));
            codes[7][lanes] = or_masked::<0x10>(codes[7][lanes], _mm512_srli_epi16::<3>(bits));
        }
        if F::SPEC.bits == 6 {
            for part in 0..2 {
                let bits = load(high, 2 * part + lanes);
                let codes = &mut codes[4 * part..4 * part + 4];
                codes[0][lanes] = or_masked::<0x30>(codes[0][lanes], _mm512_slli_epi16::<4>(bits));
                codes[1][lanes] = or_masked::<0x30>(codes[1][lanes], _mm512_slli_epi16::<2>(bits));
                codes[2][lanes] = or_masked::<0x30>(codes[2][lanes], bits);
                codes[3][lanes] = or_masked::<0x30>(codes[3][lanes], _mm512_srli_epi16::<2>(bits));
            }
        }
        if F::SPEC.table {
            // SAFETY: the table has 16 bytes.
            let table = unsafe { _mm_loadu_si128(IQ4_NL_CODES.as_ptr().cast()) };
            let table = _mm512_broadcast_i32x4(table);
            for codes in &mut codes {
                codes[lanes] = _mm512_shuffle_epi8(table, codes[lanes]);
            }
        }
    }
    codes
}

/// `low | high & MASK` in each byte.
#[inline]
#[target_feature(enable = "avx512f")]
fn or_masked<const MASK: i8>(low: __m512i, high: __m512i) -> __m512i {
    _mm512_ternarylogic_epi64::<0b1111_1000>(low, high, _mm512_set1_epi8(MASK))
}

/// Scales of both halves, and minima.
///
/// # Safety
/// `chunk` points to a chunk.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn unpack_scales<F: Format>(
    chunk: *const u8,
    block: usize,
) -> ([[__m512; 2]; 2], [__m512; 2]) {
    let mut scales = [[_mm512_setzero_ps(); 2]; 2];
    let mut minima = [_mm512_setzero_ps(); 2];
    for lanes in 0..2 {
        // SAFETY: fields of the header of a chunk, 16 rows each.
        let half = |field: usize| unsafe {
            _mm512_cvtph_ps(_mm256_loadu_si256(
                chunk.add((field * GROUP + 16 * lanes) * 2).cast(),
            ))
        };
        // SAFETY: as above.
        let bytes =
            |field: usize| unsafe { _mm_loadu_si128(chunk.add(field * GROUP + 16 * lanes).cast()) };
        match F::SPEC.scales {
            Scales::Plain => scales[0][lanes] = half(0),
            Scales::Minimum => {
                scales[0][lanes] = half(0);
                minima[lanes] = half(1);
            }
            Scales::Factors6 => {
                let wide = |field| _mm512_cvtepu8_epi32(bytes(4 + field));
                let mask = _mm512_set1_epi32(63);
                let (scale, minimum) = if block < 4 {
                    let (scale, minimum) = (wide(block), wide(block + 4));
                    (
                        _mm512_and_si512(scale, mask),
                        _mm512_and_si512(minimum, mask),
                    )
                } else {
                    let shared = wide(block + 4);
                    let top = |field| _mm512_slli_epi32::<4>(_mm512_srli_epi32::<6>(wide(field)));
                    let low = _mm512_and_si512(shared, _mm512_set1_epi32(15));
                    (
                        _mm512_or_si512(low, top(block - 4)),
                        _mm512_or_si512(_mm512_srli_epi32::<4>(shared), top(block)),
                    )
                };
                scales[0][lanes] = _mm512_mul_ps(half(0), _mm512_cvtepi32_ps(scale));
                let minimum = _mm512_mul_ps(half(1), _mm512_cvtepi32_ps(minimum));
                minima[lanes] = _mm512_sub_ps(_mm512_setzero_ps(), minimum);
            }
            Scales::Factors8 => {
                for (index, scales) in scales.iter_mut().enumerate() {
                    let factors = _mm512_cvtepi8_epi32(bytes(2 + 2 * block + index));
                    scales[lanes] = _mm512_mul_ps(half(0), _mm512_cvtepi32_ps(factors));
                }
            }
        }
    }
    (scales, minima)
}
