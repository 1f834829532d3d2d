//! Between ggml's blocks and packed groups. Codes travel as words of 4 bytes,
//! the 4 values of k of a step.

#[cfg(target_arch = "x86_64")]
mod avx2;

use super::format::{Format, GROUP, Scales, Spec, WeightType, with_format};
use crate::dispatch::Tier;

/// The 32 codes of a row's block, as little-endian words.
type Codes = [u32; 8];

const BITS_4: u32 = 0x0f0f_0f0f;
const BITS_2: u32 = 0x0303_0303;
const BIT: u32 = 0x0101_0101;

/// Packs up to [`GROUP`] rows of `row_bytes` bytes; missing ones are zero.
pub(crate) fn pack_group(
    tier: Tier,
    kind: WeightType,
    rows: &[u8],
    row_bytes: usize,
    packed: &mut [u8],
) {
    assert!(tier.is_available());
    match tier {
        #[cfg(target_arch = "x86_64")]
        Tier::Avx2 | Tier::AvxVnni | Tier::Avx512Vnni if rows.len() == GROUP * row_bytes => {
            // SAFETY: all of these tiers have AVX2, and all rows are there.
            unsafe { avx2::pack_group(kind, rows, row_bytes, packed) }
        }
        _ => with_format!(kind, pack(rows, row_bytes, packed)),
    }
}

/// The inverse of [`pack_group`].
pub(crate) fn unpack_group(kind: WeightType, packed: &[u8], row_bytes: usize, rows: &mut [u8]) {
    with_format!(kind, unpack(packed, row_bytes, rows))
}

fn pack<F: Format>(rows: &[u8], row_bytes: usize, packed: &mut [u8]) {
    let full = rows.len() == GROUP * row_bytes;
    let chunks = packed.chunks_exact_mut(F::SPEC.chunk());
    for (index, chunk) in chunks.enumerate() {
        if !full {
            chunk.fill(0);
        }
        for (row, source) in rows.chunks_exact(row_bytes).enumerate() {
            let source = &source[index * F::SPEC.ggml_block()..][..F::SPEC.ggml_block()];
            for_each_field(F::SPEC, row, |from, to, size| {
                chunk[to..to + size].copy_from_slice(&source[from..from + size]);
            });
            for block in 0..F::SPEC.blocks {
                let codes = ggml_codes(F::KIND, source, block);
                write_codes(F::SPEC, &codes, row, block, chunk);
            }
        }
    }
}

fn unpack<F: Format>(packed: &[u8], row_bytes: usize, rows: &mut [u8]) {
    let chunks = packed.chunks_exact(F::SPEC.chunk());
    for (index, chunk) in chunks.enumerate() {
        for (row, target) in rows.chunks_exact_mut(row_bytes).enumerate() {
            let target = &mut target[index * F::SPEC.ggml_block()..][..F::SPEC.ggml_block()];
            target.fill(0);
            for_each_field(F::SPEC, row, |to, from, size| {
                target[to..to + size].copy_from_slice(&chunk[from..from + size]);
            });
            for block in 0..F::SPEC.blocks {
                let codes = read_codes(F::SPEC, chunk, row, block);
                set_ggml_codes(F::KIND, &codes, block, target);
            }
        }
    }
}

/// Calls `copy(in ggml's block, in the packed chunk, bytes)` for each field of
/// the header of a row.
fn for_each_field(spec: Spec, row: usize, mut copy: impl FnMut(usize, usize, usize)) {
    // Runs of fields: place in ggml's block, bytes of a field, number of fields.
    let runs: &[(usize, usize, usize)] = match spec.scales {
        Scales::Plain => &[(0, 2, 1)],
        Scales::Minimum => &[(0, 2, 2)],
        Scales::Factors6 => &[(0, 2, 2), (4, 1, 12)],
        Scales::Factors8 => &[(208, 2, 1), (192, 1, 16)],
    };
    let mut start = 0;
    for &(place, size, count) in runs {
        for index in 0..count {
            copy(place + index * size, start + row * size, size);
            start += size * GROUP;
        }
    }
}

#[inline(always)]
fn word(bytes: &[u8], index: usize) -> u32 {
    u32::from_le_bytes(bytes[4 * index..4 * index + 4].try_into().expect("4 bytes"))
}

#[inline(always)]
fn set_word(bytes: &mut [u8], index: usize, value: u32) {
    bytes[4 * index..4 * index + 4].copy_from_slice(&value.to_le_bytes());
}

/// Where the high and the low bits of a packed block begin.
fn block_start(spec: Spec, block: usize) -> (usize, usize) {
    let high = spec.header() + block * (spec.high() + spec.low());
    (high, high + spec.high())
}

fn write_codes(spec: Spec, codes: &Codes, row: usize, block: usize, chunk: &mut [u8]) {
    let (high, low) = block_start(spec, block);
    let (high, low) = chunk[high..].split_at_mut(low - high);
    if spec.bits == 8 {
        for (step, &code) in codes.iter().enumerate() {
            set_word(low, step * GROUP + row, code);
        }
        return;
    }
    for step in 0..4 {
        let nibbles = codes[step] & BITS_4 | (codes[step + 4] & BITS_4) << 4;
        set_word(low, step * GROUP + row, nibbles);
    }
    if spec.bits == 5 {
        let bits = (0..8).fold(0, |bits, s| bits | (codes[s] >> 4 & BIT) << s);
        set_word(high, row, bits);
    } else if spec.bits == 6 {
        for part in 0..2 {
            let codes = &codes[4 * part..];
            let bits = (0..4).fold(0, |bits, u| bits | (codes[u] >> 4 & BITS_2) << (2 * u));
            set_word(high, part * GROUP + row, bits);
        }
    }
}

/// The codes of a row's block: nibbles of IQ4_NL are not looked up.
pub(crate) fn read_codes(spec: Spec, chunk: &[u8], row: usize, block: usize) -> Codes {
    let (high, low) = block_start(spec, block);
    let (high, low) = chunk[high..].split_at(low - high);
    if spec.bits == 8 {
        return std::array::from_fn(|step| word(low, step * GROUP + row));
    }
    std::array::from_fn(|step| {
        let nibbles = word(low, step % 4 * GROUP + row) >> (step / 4 * 4) & BITS_4;
        let bits = match spec.bits {
            5 => word(high, row) >> step & BIT,
            6 => word(high, step / 4 * GROUP + row) >> (step % 4 * 2) & BITS_2,
            _ => 0,
        };
        nibbles | bits << 4
    })
}

/// Offsets of the low and the high bits in ggml's block.
fn ggml_places(kind: WeightType) -> (usize, usize) {
    match kind {
        WeightType::Q4_0 | WeightType::IQ4_NL | WeightType::Q8_0 => (2, 0),
        WeightType::Q4_1 => (4, 0),
        WeightType::Q5_0 => (6, 2),
        WeightType::Q5_1 => (8, 4),
        WeightType::Q4_K => (16, 0),
        WeightType::Q5_K => (48, 16),
        WeightType::Q6_K => (0, 128),
    }
}

/// Spreads 4 bits to the lowest bits of 4 bytes.
#[inline(always)]
fn spread(bits: u32) -> u32 {
    (bits & 0xf).wrapping_mul(0x0020_4081) & BIT
}

/// The inverse of [`spread`].
#[inline(always)]
fn gather(bits: u32) -> u32 {
    (bits & BIT).wrapping_mul(0x0102_0408) >> 24
}

/// Where word `step` of a Q6_K block is: its word and shift in the low bits,
/// and in the high ones.
fn q6_place(block: usize, step: usize) -> ((usize, usize), (usize, usize)) {
    let (half, quarter) = (block / 4, block % 4);
    let low = (16 * half + 8 * (quarter % 2) + step, 4 * (quarter / 2));
    (low, (8 * half + step, 2 * quarter))
}

fn ggml_codes(kind: WeightType, source: &[u8], block: usize) -> Codes {
    let (low, high) = ggml_places(kind);
    let (low, high) = (&source[low..], &source[high..]);
    match kind {
        // Signed bytes: the offset 128 makes codes of them.
        WeightType::Q8_0 => std::array::from_fn(|step| word(low, step) ^ 0x8080_8080),
        WeightType::Q4_K | WeightType::Q5_K => std::array::from_fn(|step| {
            let nibbles = word(low, block / 2 * 8 + step) >> (block % 2 * 4) & BITS_4;
            match kind {
                WeightType::Q5_K => nibbles | (word(high, step) >> block & BIT) << 4,
                _ => nibbles,
            }
        }),
        WeightType::Q6_K => std::array::from_fn(|step| {
            let (l, h) = q6_place(block, step);
            word(low, l.0) >> l.1 & BITS_4 | (word(high, h.0) >> h.1 & BITS_2) << 4
        }),
        _ => std::array::from_fn(|step| {
            let nibbles = word(low, step % 4) >> (step / 4 * 4) & BITS_4;
            match kind {
                WeightType::Q5_0 | WeightType::Q5_1 => {
                    nibbles | spread(word(high, 0) >> (4 * step)) << 4
                }
                _ => nibbles,
            }
        }),
    }
}

/// The inverse of [`ggml_codes`], into bytes that are zero at first.
fn set_ggml_codes(kind: WeightType, codes: &Codes, block: usize, target: &mut [u8]) {
    let (low, high) = ggml_places(kind);
    let mut or = |start: usize, index: usize, bits: u32| {
        let bytes = &mut target[start..];
        set_word(bytes, index, word(bytes, index) | bits);
    };
    for (step, &code) in codes.iter().enumerate() {
        match kind {
            WeightType::Q8_0 => or(low, step, code ^ 0x8080_8080),
            WeightType::Q4_K | WeightType::Q5_K => {
                or(
                    low,
                    block / 2 * 8 + step,
                    (code & BITS_4) << (block % 2 * 4),
                );
                if kind == WeightType::Q5_K {
                    or(high, step, (code >> 4 & BIT) << block);
                }
            }
            WeightType::Q6_K => {
                let (l, h) = q6_place(block, step);
                or(low, l.0, (code & BITS_4) << l.1);
                or(high, h.0, (code >> 4 & BITS_2) << h.1);
            }
            _ => {
                or(low, step % 4, (code & BITS_4) << (step / 4 * 4));
                if matches!(kind, WeightType::Q5_0 | WeightType::Q5_1) {
                    or(high, 0, gather(code >> 4) << (4 * step));
                }
            }
        }
    }
}
