//! From packed weights to codes, scales and minima in registers.

#![allow(clippy::needless_range_loop)]

use std::arch::x86_64::*;

use super::super::format::{Format, GROUP, IQ4_NL_CODES, Scales};
use super::{LANES, Weights};

/// # Safety
/// `chunk` points to a chunk; lanes < 4.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn unpack<F: Format, const VNNI: bool>(
    chunk: *const u8,
    block: usize,
    lanes: usize,
) -> Weights {
    let spec = F::SPEC;
    // SAFETY: a chunk has a header and the high and low bits of its blocks.
    unsafe {
        let high = chunk.add(spec.header() + block * (spec.high() + spec.low()));
        let (scales, minima) = unpack_scales::<F>(chunk, block, lanes);
        let mut codes = unpack_codes::<F>(high, high.add(spec.high()), lanes);
        if !VNNI && spec.shift == Some(7) {
            let sign = _mm256_set1_epi8(-128);
            for codes in &mut codes {
                *codes = _mm256_xor_si256(*codes, sign);
            }
        }
        Weights {
            codes,
            scales,
            minima,
        }
    }
}

/// # Safety
/// `high` and `low` point to the bits of a block; lanes < 4.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn unpack_codes<F: Format>(high: *const u8, low: *const u8, lanes: usize) -> [__m256i; 8] {
    // SAFETY: the uses below stay within the 32-byte pieces of a block.
    let load = |from: *const u8, index: usize| unsafe {
        _mm256_loadu_si256(from.add(32 * (LANES * index + lanes)).cast())
    };
    let mut codes = [_mm256_setzero_si256(); 8];
    if F::SPEC.bits == 8 {
        for step in 0..8 {
            codes[step] = load(low, step);
        }
        return codes;
    }
    let mask = _mm256_set1_epi8(0x0f);
    for step in 0..4 {
        let nibbles = load(low, step);
        codes[step] = _mm256_and_si256(nibbles, mask);
        codes[step + 4] = _mm256_and_si256(_mm256_srli_epi16::<4>(nibbles), mask);
    }
    if F::SPEC.bits == 5 {
        let bits = load(high, 0);
        codes[0] = or_masked::<0x10>(codes[0], _mm256_slli_epi16::<4>(bits));
        codes[1] = or_masked::<0x10>(codes[1], _mm256_slli_epi16::<3>(bits));
        codes[2] = or_masked::<0x10>(codes[2], _mm256_slli_epi16::<2>(bits));
        codes[3] = or_masked::<0x10>(codes[3], _mm256_slli_epi16::<1>(bits));
        codes[4] = or_masked::<0x10>(codes[4], bits);
        codes[5] = or_masked::<0x10>(codes[5], _mm256_srli_epi16::<1>(bits));
        codes[6] = or_masked::<0x10>(codes[6], _mm256_srli_epi16::<2>(bits));
        codes[7] = or_masked::<0x10>(codes[7], _mm256_srli_epi16::<3>(bits));
    }
    if F::SPEC.bits == 6 {
        for part in 0..2 {
            let bits = load(high, part);
            let codes = &mut codes[4 * part..4 * part + 4];
            codes[0] = or_masked::<0x30>(codes[0], _mm256_slli_epi16::<4>(bits));
            codes[1] = or_masked::<0x30>(codes[1], _mm256_slli_epi16::<2>(bits));
            codes[2] = or_masked::<0x30>(codes[2], bits);
            codes[3] = or_masked::<0x30>(codes[3], _mm256_srli_epi16::<2>(bits));
        }
    }
    if F::SPEC.table {
        // SAFETY: the table has 16 bytes.
        let table = unsafe { _mm_loadu_si128(IQ4_NL_CODES.as_ptr().cast()) };
        let table = _mm256_broadcastsi128_si256(table);
        for codes in &mut codes {
            *codes = _mm256_shuffle_epi8(table, *codes);
        }
    }
    codes
}

/// `low | high & MASK` in each byte.
#[inline]
#[target_feature(enable = "avx2")]
fn or_masked<const MASK: i8>(low: __m256i, high: __m256i) -> __m256i {
    _mm256_or_si256(low, _mm256_and_si256(high, _mm256_set1_epi8(MASK)))
}

/// Scales of both halves, and minima.
///
/// # Safety
/// `chunk` points to a chunk; lanes < 4.
#[inline]
#[target_feature(enable = "avx2,f16c")]
unsafe fn unpack_scales<F: Format>(
    chunk: *const u8,
    block: usize,
    lanes: usize,
) -> ([__m256; 2], __m256) {
    let zero = _mm256_setzero_ps();
    // SAFETY: fields of the header of a chunk, 8 rows each.
    let half = |field: usize| unsafe {
        _mm256_cvtph_ps(_mm_loadu_si128(
            chunk.add((field * GROUP + 8 * lanes) * 2).cast(),
        ))
    };
    // SAFETY: as above.
    let bytes =
        |field: usize| unsafe { _mm_loadl_epi64(chunk.add(field * GROUP + 8 * lanes).cast()) };
    match F::SPEC.scales {
        Scales::Plain => ([half(0), zero], zero),
        Scales::Minimum => ([half(0), zero], half(1)),
        Scales::Factors6 => {
            let wide = |field| _mm256_cvtepu8_epi32(bytes(4 + field));
            let (scale, minimum) = if block < 4 {
                let mask = _mm256_set1_epi32(63);
                (
                    _mm256_and_si256(wide(block), mask),
                    _mm256_and_si256(wide(block + 4), mask),
                )
            } else {
                let shared = wide(block + 4);
                let top = |field| _mm256_slli_epi32::<4>(_mm256_srli_epi32::<6>(wide(field)));
                let low = _mm256_and_si256(shared, _mm256_set1_epi32(15));
                (
                    _mm256_or_si256(low, top(block - 4)),
                    _mm256_or_si256(_mm256_srli_epi32::<4>(shared), top(block)),
                )
            };
            let scale = _mm256_mul_ps(half(0), _mm256_cvtepi32_ps(scale));
            let minimum = _mm256_mul_ps(half(1), _mm256_cvtepi32_ps(minimum));
            ([scale, zero], _mm256_sub_ps(zero, minimum))
        }
        Scales::Factors8 => {
            let scale = |index| {
                let factors = _mm256_cvtepi8_epi32(bytes(2 + 2 * block + index));
                _mm256_mul_ps(half(0), _mm256_cvtepi32_ps(factors))
            };
            ([scale(0), scale(1)], zero)
        }
    }
}
