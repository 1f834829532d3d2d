//! Packing with AVX2: 8 rows at a time. A row's block of codes is a register,
//! 8 of these are transposed as words, and the bits of a step are then put
//! together for all 8 rows at once.

use std::arch::x86_64::*;

use super::super::format::{Format, GROUP, Scales, WeightType, with_format};
use super::{block_start, ggml_places, q6_place};

/// Packs [`GROUP`] rows of `row_bytes` bytes.
///
/// # Safety
/// AVX2 is there; `rows` has all rows, and `packed` has room for the group.
pub(crate) unsafe fn pack_group(
    kind: WeightType,
    rows: &[u8],
    row_bytes: usize,
    packed: &mut [u8],
) {
    // SAFETY: as the caller promises.
    unsafe { with_format!(kind, pack(rows, row_bytes, packed)) }
}

/// # Safety
/// As [`pack_group`].
#[target_feature(enable = "avx2")]
unsafe fn pack<F: Format>(rows: &[u8], row_bytes: usize, packed: &mut [u8]) {
    assert!(rows.len() == GROUP * row_bytes);
    assert!(packed.len() / F::SPEC.chunk() * F::SPEC.ggml_block() == row_bytes);
    for (index, chunk) in packed.chunks_exact_mut(F::SPEC.chunk()).enumerate() {
        let source = rows[index * F::SPEC.ggml_block()..].as_ptr();
        let target = chunk.as_mut_ptr();
        prefetch_next_group(rows, index, GROUP * F::SPEC.ggml_block());
        // SAFETY: every row has a block of ggml's at `source + row *
        // row_bytes`, and the chunk has room for all of them.
        unsafe {
            pack_header::<F>(source, row_bytes, target);
            for block in 0..F::SPEC.blocks {
                let (high, low) = block_start(F::SPEC, block);
                for first in (0..GROUP).step_by(8) {
                    let row = |row| source.add((first + row) * row_bytes);
                    let codes = std::array::from_fn(|i| codes::<F>(row(i), block));
                    let (high, low) = (target.add(high + 4 * first), target.add(low + 4 * first));
                    store::<F>(transposed(codes), high, low);
                }
            }
        }
    }
}

/// Asks for the piece of the next group's rows that has the size of a chunk:
/// the rows of a group are too many streams for the hardware to follow.
#[inline]
fn prefetch_next_group(rows: &[u8], index: usize, bytes: usize) {
    let start = rows.as_ptr().wrapping_add(rows.len() + index * bytes);
    for line in (0..bytes).step_by(64) {
        // SAFETY: prefetches of any address are allowed.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(start.wrapping_add(line).cast()) };
    }
}

/// Writes the header of a chunk.
///
/// # Safety
/// `source` points to a block of ggml's, the other rows' ones are `row_bytes`
/// apart; `target` has room for a header.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn pack_header<F: Format>(source: *const u8, row_bytes: usize, target: *mut u8) {
    // SAFETY: a half float at `place` of a block, to its place among those of
    // the rows.
    let half = |place: usize, field: usize| unsafe {
        for row in 0..GROUP {
            let value = source.add(row * row_bytes + place).cast::<[u8; 2]>().read();
            target
                .cast::<[u8; 2]>()
                .add(field * GROUP + row)
                .write(value);
        }
    };
    // SAFETY: 16 bytes at `place` of 16 rows' blocks.
    let columns = |place: usize, first: usize| unsafe {
        columns(std::array::from_fn(|row| {
            _mm_loadu_si128(source.add((first + row) * row_bytes + place).cast())
        }))
    };
    // SAFETY: `at` is a place in the header that has 16 bytes for each `values`.
    let store = |at: usize, values: __m128i| unsafe {
        _mm_storeu_si128(target.add(at).cast(), values);
    };
    match F::SPEC.scales {
        Scales::Plain => half(0, 0),
        Scales::Minimum => {
            half(0, 0);
            half(2, 1);
        }
        Scales::Factors6 => {
            for first in [0, GROUP / 2] {
                let columns = columns(0, first);
                for field in 0..2 {
                    let (low, high) = (columns[2 * field], columns[2 * field + 1]);
                    let at = (field * GROUP + first) * 2;
                    store(at, _mm_unpacklo_epi8(low, high));
                    store(at + 16, _mm_unpackhi_epi8(low, high));
                }
                for (field, &column) in columns.iter().enumerate().skip(4) {
                    store(field * GROUP + first, column);
                }
            }
        }
        Scales::Factors8 => {
            half(208, 0);
            for first in [0, GROUP / 2] {
                for (field, column) in columns(192, first).into_iter().enumerate() {
                    store((2 + field) * GROUP + first, column);
                }
            }
        }
    }
}

/// Byte i of all rows, for each i: every round deals the halves of the rows
/// out as one does with cards.
#[inline]
#[target_feature(enable = "avx2")]
fn columns(mut rows: [__m128i; 16]) -> [__m128i; 16] {
    for _ in 0..4 {
        rows = std::array::from_fn(|i| match i % 2 {
            0 => _mm_unpacklo_epi8(rows[i / 2], rows[i / 2 + 8]),
            _ => _mm_unpackhi_epi8(rows[i / 2], rows[i / 2 + 8]),
        });
    }
    rows
}

/// The 32 codes of a row's block (`ggml_codes` in plain Rust).
///
/// # Safety
/// `source` points to a block of ggml's.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn codes<F: Format>(source: *const u8, block: usize) -> __m256i {
    let (low, high) = ggml_places(F::KIND);
    // SAFETY: the uses below stay within ggml's block.
    let load = |at: usize| unsafe { _mm256_loadu_si256(source.add(at).cast()) };
    let nibble = _mm256_set1_epi8(0x0f);
    match F::KIND {
        WeightType::Q8_0 => _mm256_xor_si256(load(low), _mm256_set1_epi8(-128)),
        WeightType::Q4_K | WeightType::Q5_K => {
            let nibbles = shifted_right(load(low + block / 2 * 32), block % 2 * 4);
            let nibbles = _mm256_and_si256(nibbles, nibble);
            if F::KIND == WeightType::Q4_K {
                return nibbles;
            }
            let bits = shifted_right(load(high), block);
            let bits = _mm256_and_si256(bits, _mm256_set1_epi8(1));
            _mm256_or_si256(nibbles, _mm256_slli_epi16::<4>(bits))
        }
        WeightType::Q6_K => {
            let (l, h) = q6_place(block, 0);
            let nibbles = shifted_right(load(low + 4 * l.0), l.1);
            let bits = shifted_right(load(high + 4 * h.0), h.1);
            let bits = _mm256_and_si256(bits, _mm256_set1_epi8(3));
            let nibbles = _mm256_and_si256(nibbles, nibble);
            _mm256_or_si256(nibbles, _mm256_slli_epi16::<4>(bits))
        }
        _ => {
            // SAFETY: the 16 bytes of a block.
            let bytes = unsafe { _mm_loadu_si128(source.add(low).cast()) };
            let nibbles = _mm256_set_m128i(_mm_srli_epi16::<4>(bytes), bytes);
            let nibbles = _mm256_and_si256(nibbles, nibble);
            if !matches!(F::KIND, WeightType::Q5_0 | WeightType::Q5_1) {
                return nibbles;
            }
            // SAFETY: the 4 bytes of a block.
            let bits = unsafe { source.add(high).cast::<i32>().read_unaligned() };
            // Byte i of the 4 for values 8 i and on, one bit for each.
            let bytes = _mm256_setr_epi64x(
                0,
                0x0101_0101_0101_0101,
                0x0202_0202_0202_0202,
                0x0303_0303_0303_0303,
            );
            let each = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            let bits = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), bytes);
            let set = _mm256_cmpeq_epi8(_mm256_and_si256(bits, each), each);
            _mm256_or_si256(nibbles, _mm256_and_si256(set, _mm256_set1_epi8(0x10)))
        }
    }
}

/// Bytes shifted right; their upper bits are those of neighbours.
#[inline]
#[target_feature(enable = "avx2")]
fn shifted_right(bytes: __m256i, bits: usize) -> __m256i {
    _mm256_srl_epi16(bytes, _mm_cvtsi32_si128(bits as i32))
}

/// Word i of all rows, for each i.
#[inline]
#[target_feature(enable = "avx2")]
fn transposed(rows: [__m256i; 8]) -> [__m256i; 8] {
    let pairs: [__m256i; 8] = std::array::from_fn(|i| {
        let (a, b) = (rows[i / 2 * 2], rows[i / 2 * 2 + 1]);
        match i % 2 {
            0 => _mm256_unpacklo_epi32(a, b),
            _ => _mm256_unpackhi_epi32(a, b),
        }
    });
    // Words i and i + 4 of four rows.
    let fours: [__m256i; 8] = std::array::from_fn(|i| {
        let (a, b) = (
            pairs[i / 4 * 4 + i % 4 / 2],
            pairs[i / 4 * 4 + i % 4 / 2 + 2],
        );
        match i % 2 {
            0 => _mm256_unpacklo_epi64(a, b),
            _ => _mm256_unpackhi_epi64(a, b),
        }
    });
    std::array::from_fn(|i| match i / 4 {
        0 => _mm256_permute2x128_si256::<0x20>(fours[i], fours[i + 4]),
        _ => _mm256_permute2x128_si256::<0x31>(fours[i - 4], fours[i]),
    })
}

/// Writes the codes of 8 rows by steps (`write_codes` in plain Rust).
///
/// # Safety
/// `high` and `low` point to the rows' places in a block.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store<F: Format>(codes: [__m256i; 8], high: *mut u8, low: *mut u8) {
    // SAFETY: steps and parts of a block.
    let store = |to: *mut u8, index: usize, bits: __m256i| unsafe {
        _mm256_storeu_si256(to.add(4 * GROUP * index).cast(), bits);
    };
    if F::SPEC.bits == 8 {
        for (step, &codes) in codes.iter().enumerate() {
            store(low, step, codes);
        }
        return;
    }
    let nibble = _mm256_set1_epi8(0x0f);
    for step in 0..4 {
        let upper = _mm256_slli_epi16::<4>(_mm256_and_si256(codes[step + 4], nibble));
        let lower = _mm256_and_si256(codes[step], nibble);
        store(low, step, _mm256_or_si256(lower, upper));
    }
    // Bits of `mask` of each code, `width` places further up for each step.
    let gather = |codes: &[__m256i], mask: i8, width: usize| {
        let mask = _mm256_set1_epi8(mask);
        let mut bits = _mm256_setzero_si256();
        for (index, &codes) in codes.iter().enumerate() {
            let code = _mm256_and_si256(_mm256_srli_epi16::<4>(codes), mask);
            let code = _mm256_sll_epi16(code, _mm_cvtsi32_si128((index * width) as i32));
            bits = _mm256_or_si256(bits, code);
        }
        bits
    };
    if F::SPEC.bits == 5 {
        store(high, 0, gather(&codes, 1, 1));
    } else if F::SPEC.bits == 6 {
        store(high, 0, gather(&codes[..4], 3, 2));
        store(high, 1, gather(&codes[4..], 3, 2));
    }
}
