//! Packing with AVX2: 8 rows at a time. Words of 4 bytes are transposed as
//! ggml has them, so that a register has the same word of 8 rows; what the
//! types do with the bits in it is then done for all 8 at once.

use std::arch::x86_64::*;

use super::super::format::{Format, GROUP, Scales, WeightType, with_format};
use super::{block_start, ggml_places};

/// Rows at a time: the words of a register.
const ROWS: usize = 8;

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
    // The rows of a group are too many streams for the hardware to follow: we
    // ask for the next group, as many lines as we pack of this one.
    let mut next = rows.as_ptr_range().end;
    for (index, chunk) in packed.chunks_exact_mut(F::SPEC.chunk()).enumerate() {
        let source = rows[index * F::SPEC.ggml_block()..].as_ptr();
        let target = chunk.as_mut_ptr();
        // SAFETY: every row has a block of ggml's at `source + row *
        // row_bytes`, and the chunk has room for all of them.
        unsafe {
            pack_header::<F>(source, row_bytes, target);
            for first in (0..GROUP).step_by(ROWS) {
                let rows = Source {
                    first: source.add(first * row_bytes),
                    row_bytes,
                };
                let target = Target {
                    chunk: target,
                    first,
                };
                next = prefetch::<F>(next);
                match F::KIND {
                    WeightType::Q4_K | WeightType::Q5_K => pack_k4::<F>(rows, target),
                    WeightType::Q6_K => pack_k6::<F>(rows, target),
                    _ => pack_plain::<F>(rows, target),
                }
            }
        }
    }
}

/// Asks for as many bytes as [`ROWS`] rows of a chunk have; returns their end.
#[inline]
fn prefetch<F: Format>(start: *const u8) -> *const u8 {
    let bytes = ROWS * F::SPEC.ggml_block();
    for line in (0..bytes).step_by(64) {
        // SAFETY: prefetches of any address are allowed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line).cast()) };
    }
    start.wrapping_add(bytes)
}

/// Blocks of [`ROWS`] rows as ggml has them.
#[derive(Clone, Copy)]
struct Source {
    first: *const u8,
    row_bytes: usize,
}

impl Source {
    /// Words 0 to 3 of all rows, from byte `place` of their blocks.
    ///
    /// # Safety
    /// The blocks have these bytes.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn words(self, place: usize) -> [__m256i; 4] {
        // SAFETY: as the caller promises.
        let load =
            |row| unsafe { _mm_loadu_si128(self.first.add(row * self.row_bytes + place).cast()) };
        let [a, b, c, d] = std::array::from_fn(|row| _mm256_set_m128i(load(row + 4), load(row)));
        let (ab, cd) = (_mm256_unpacklo_epi32(a, b), _mm256_unpacklo_epi32(c, d));
        let (ab2, cd2) = (_mm256_unpackhi_epi32(a, b), _mm256_unpackhi_epi32(c, d));
        [
            _mm256_unpacklo_epi64(ab, cd),
            _mm256_unpackhi_epi64(ab, cd),
            _mm256_unpacklo_epi64(ab2, cd2),
            _mm256_unpackhi_epi64(ab2, cd2),
        ]
    }

    /// Words 0 to 7.
    ///
    /// # Safety
    /// As for [`words`](Self::words).
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn eight_words(self, place: usize) -> [__m256i; 8] {
        // SAFETY: as the caller promises.
        let ([a, b, c, d], [e, f, g, h]) = unsafe { (self.words(place), self.words(place + 16)) };
        [a, b, c, d, e, f, g, h]
    }

    /// The word at `place` of all rows' blocks.
    ///
    /// # Safety
    /// As for [`words`](Self::words).
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn word(self, place: usize) -> __m256i {
        // SAFETY: as the caller promises.
        let load = |row| unsafe {
            let word = self.first.add(row * self.row_bytes + place);
            word.cast::<i32>().read_unaligned()
        };
        let [a, b, c, d, e, f, g, h] = std::array::from_fn(load);
        _mm256_setr_epi32(a, b, c, d, e, f, g, h)
    }
}

/// A chunk, and the first of the [`ROWS`] rows.
#[derive(Clone, Copy)]
struct Target {
    chunk: *mut u8,
    first: usize,
}

impl Target {
    /// Writes words of the rows from byte `place` of the chunk on, those of a
    /// step or part each.
    ///
    /// # Safety
    /// The chunk has these bytes.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn store<const N: usize>(self, place: usize, words: [__m256i; N]) {
        for (index, words) in words.into_iter().enumerate() {
            let place = place + 4 * (GROUP * index + self.first);
            // SAFETY: as the caller promises.
            unsafe { _mm256_storeu_si256(self.chunk.add(place).cast(), words) };
        }
    }
}

/// Rows of a type whose chunk is one block.
///
/// # Safety
/// The rows have their blocks, and the target has room for them.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn pack_plain<F: Format>(rows: Source, target: Target) {
    let (from_low, from_high) = ggml_places(F::KIND);
    let (high, low) = block_start(F::SPEC, 0);
    // SAFETY: as the caller promises.
    unsafe {
        if F::SPEC.bits == 8 {
            // Signed bytes: the offset 128 makes codes of them.
            let sign = _mm256_set1_epi8(-128);
            let words = rows.eight_words(from_low);
            return target.store(low, words.map(|word| _mm256_xor_si256(word, sign)));
        }
        // Nibbles of steps s and s + 4 share a word with ggml, too.
        target.store(low, rows.words(from_low));
        if F::SPEC.bits == 5 {
            target.store(high, [by_place(rows.word(from_high))]);
        }
    }
}

/// Bit 4 s + c of each word becomes bit s of its byte c: the bits of the place
/// change theirs, two each time.
#[inline]
#[target_feature(enable = "avx2")]
fn by_place(mut bits: __m256i) -> __m256i {
    macro_rules! swap {
        ($distance:literal, $mask:literal) => {
            let moved = _mm256_xor_si256(_mm256_srli_epi32::<$distance>(bits), bits);
            let moved = _mm256_and_si256(moved, _mm256_set1_epi32($mask));
            bits = _mm256_xor_si256(bits, moved);
            bits = _mm256_xor_si256(bits, _mm256_slli_epi32::<$distance>(moved));
        };
    }
    swap!(14, 0x0000_cccc);
    swap!(7, 0x00aa_00aa);
    swap!(2, 0x0c0c_0c0c);
    swap!(1, 0x2222_2222);
    bits
}

/// Rows of Q4_K or Q5_K.
///
/// # Safety
/// As [`pack_plain`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn pack_k4<F: Format>(rows: Source, target: Target) {
    let (from_low, from_high) = ggml_places(F::KIND);
    // SAFETY: as the caller promises.
    unsafe {
        for pair in 0..F::SPEC.blocks / 2 {
            let blocks = split_nibbles(rows.eight_words(from_low + 32 * pair));
            for (index, words) in blocks.into_iter().enumerate() {
                target.store(block_start(F::SPEC, 2 * pair + index).1, words);
            }
        }
        if F::SPEC.bits == 5 {
            // Word s has a bit of each block: a block has a bit of each word.
            let mut bits = rows.eight_words(from_high);
            swap_bits::<4, 8>(&mut bits, 0x0f);
            swap_bits::<2, 8>(&mut bits, 0x33);
            swap_bits::<1, 8>(&mut bits, 0x55);
            for (block, bits) in bits.into_iter().enumerate() {
                target.store(block_start(F::SPEC, block).0, [bits]);
            }
        }
    }
}

/// Rows of Q6_K.
///
/// # Safety
/// As [`pack_plain`].
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn pack_k6<F: Format>(rows: Source, target: Target) {
    let (from_low, from_high) = ggml_places(F::KIND);
    for half in 0..2 {
        // SAFETY: as the caller promises.
        unsafe {
            for pair in 0..2 {
                let blocks = split_nibbles(rows.eight_words(from_low + 64 * half + 32 * pair));
                for (index, words) in blocks.into_iter().enumerate() {
                    let block = 4 * half + 2 * index + pair;
                    target.store(block_start(F::SPEC, block).1, words);
                }
            }
            // Of 4 words, each has two bits of 4 blocks.
            let parts = [0, 16].map(|place| {
                let mut bits = rows.words(from_high + 32 * half + place);
                swap_bits::<2, 4>(&mut bits, 0x0f);
                swap_bits::<1, 4>(&mut bits, 0x33);
                bits
            });
            for quarter in 0..4 {
                let bits = parts.map(|bits| bits[quarter]);
                target.store(block_start(F::SPEC, 4 * half + quarter).0, bits);
            }
        }
    }
}

/// From words that have codes of a block in their low nibbles and codes of
/// another in the high ones, the words of both.
#[inline]
#[target_feature(enable = "avx2")]
fn split_nibbles(words: [__m256i; 8]) -> [[__m256i; 4]; 2] {
    let low = _mm256_set1_epi8(0x0f);
    let first = |step: usize| {
        let upper = _mm256_slli_epi16::<4>(_mm256_and_si256(words[step + 4], low));
        _mm256_or_si256(_mm256_and_si256(words[step], low), upper)
    };
    let second = |step: usize| {
        let lower = _mm256_and_si256(_mm256_srli_epi16::<4>(words[step]), low);
        _mm256_or_si256(lower, _mm256_andnot_si256(low, words[step + 4]))
    };
    [std::array::from_fn(first), std::array::from_fn(second)]
}

/// Swaps the upper bits that `mask` leaves out of each byte of a register with
/// the lower ones of the register `DISTANCE` further.
#[inline]
#[target_feature(enable = "avx2")]
fn swap_bits<const DISTANCE: usize, const N: usize>(bits: &mut [__m256i; N], mask: i8) {
    let shift = _mm_cvtsi32_si128((8 / N * DISTANCE) as i32);
    let mask = _mm256_set1_epi8(mask);
    for upper in (0..N).filter(|index| index & DISTANCE == 0) {
        let (a, b) = (bits[upper], bits[upper + DISTANCE]);
        let moved = _mm256_xor_si256(_mm256_srl_epi16(a, shift), b);
        let moved = _mm256_and_si256(moved, mask);
        bits[upper + DISTANCE] = _mm256_xor_si256(b, moved);
        bits[upper] = _mm256_xor_si256(a, _mm256_sll_epi16(moved, shift));
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
    // SAFETY: words at `place` of 16 rows' blocks.
    let words = |place: usize, first: usize| unsafe {
        [0, ROWS].map(|row| {
            let first = source.add((first + row) * row_bytes);
            Source { first, row_bytes }.word(place)
        })
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
    // SAFETY: the two bytes of each row from `first` on for field `field`.
    let store_halves = |field: usize, first: usize, words: [__m256i; 2]| unsafe {
        let at = target.add((field * GROUP + first) * 2);
        let packed = _mm256_packus_epi32(words[0], words[1]);
        // The pack works within 128-bit lanes.
        _mm256_storeu_si256(at.cast(), _mm256_permute4x64_epi64::<0b11_01_10_00>(packed));
    };
    let lower = |word| _mm256_and_si256(word, _mm256_set1_epi32(0xffff));
    let upper = |word| _mm256_srli_epi32::<16>(word);
    for first in [0, GROUP / 2] {
        match F::SPEC.scales {
            Scales::Plain => store_halves(0, first, words(0, first).map(lower)),
            Scales::Minimum => {
                let words = words(0, first);
                store_halves(0, first, words.map(lower));
                store_halves(1, first, words.map(upper));
            }
            Scales::Factors6 => {
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
            Scales::Factors8 => {
                // The last two bytes of a block: a word from there is too long.
                store_halves(0, first, words(206, first).map(upper));
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
