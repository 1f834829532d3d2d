//! A row of logits with a few values replaced, and the scans over it.

use std::f32::consts::{LN_2, LOG2_E};

use crate::model::Token;

/// Logits looked at together. Long enough for the loop over blocks to cost
/// nothing, short enough for a look inside to be cheap.
const BLOCK: usize = 64;
/// Parts of a block that are looked at and added side by side.
const LANES: usize = 16;

/// The logits of one row after penalties and bans, which are kept beside the
/// row instead of being written into a copy of it.
#[derive(Debug, Clone, Copy)]
pub struct Logits<'a> {
    raw: &'a [f32],
    replaced: &'a [(Token, f32)],
}

impl<'a> Logits<'a> {
    /// The logits `raw`, by token, but for those in `replaced`, which must be
    /// tokens of `raw` in rising order, each once.
    pub fn new(raw: &'a [f32], replaced: &'a [(Token, f32)]) -> Self {
        debug_assert!(replaced.is_sorted_by(|a, b| a.0 < b.0));
        debug_assert!(
            replaced
                .iter()
                .all(|&(id, _)| raw.get(id as usize).is_some())
        );
        Self { raw, replaced }
    }

    /// Size of the vocabulary.
    pub fn len(&self) -> usize {
        self.raw.len()
    }

    /// Whether the vocabulary is empty.
    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    /// Calls `take` with every token whose logit is above `threshold`, by
    /// rising id; `take` returns the threshold from there on. NaNs are above
    /// nothing.
    pub fn scan_above(&self, mut threshold: f32, mut take: impl FnMut(Token, f32) -> f32) {
        self.for_each_block(|first, block| {
            if !any_above(block, threshold) {
                return;
            }
            let parts = block.as_chunks::<LANES>().0;
            for (first, part) in (first..).step_by(LANES).zip(parts) {
                if any_above(part, threshold) {
                    for (id, &logit) in (first as Token..).zip(part) {
                        if logit > threshold {
                            threshold = take(id, logit);
                        }
                    }
                }
            }
        });
    }

    /// Sets `maxima` to the highest logit of every block; minus infinity for a
    /// block that has none above that.
    pub fn block_maxima(&self, maxima: &mut Vec<f32>) {
        maxima.clear();
        self.for_each_block(|_, block| maxima.push(block_max(block)));
    }

    /// The same as [`Self::scan_above`], for whoever has the `maxima` of
    /// [`Self::block_maxima`]: looks into those blocks only that have a logit
    /// above the threshold.
    pub fn scan_blocks_above(
        &self,
        maxima: &[f32],
        mut threshold: f32,
        mut take: impl FnMut(Token, f32) -> f32,
    ) {
        let mut replaced = self.replaced;
        let mut patched = [f32::NEG_INFINITY; BLOCK];
        for (index, &max) in maxima.iter().enumerate() {
            if max > threshold {
                let first = index * BLOCK;
                let raw = &self.raw[first..self.raw.len().min(first + BLOCK)];
                patched[..raw.len()].copy_from_slice(raw);
                patched[raw.len()..].fill(f32::NEG_INFINITY);
                let passed = replaced.partition_point(|&(id, _)| (id as usize) < first);
                replaced = patch(&mut patched, first, &replaced[passed..]);
                for (id, &logit) in (first as Token..).zip(&patched) {
                    if logit > threshold {
                        threshold = take(id, logit);
                    }
                }
            }
        }
    }

    /// Calls `take` with every token, by rising id.
    pub fn for_each(&self, mut take: impl FnMut(Token, f32)) {
        self.for_each_block(|first, block| {
            for (id, &logit) in (first..self.len()).zip(block) {
                take(id as Token, logit);
            }
        });
    }

    /// The highest logit; minus infinity if there is none above that.
    pub fn max(&self) -> f32 {
        let mut max = f32::NEG_INFINITY;
        self.scan_above(max, |_, logit| {
            max = logit;
            max
        });
        max
    }

    /// The sum of `exp((logit - max) / temperature)` over the logits of
    /// `least` or more, where `max` is the highest of all: what a softmax
    /// divides by.
    pub fn partition(&self, max: f32, temperature: f32, least: f32) -> f64 {
        // A bound on the scale, as 0 * inf is NaN.
        let scale = (LOG2_E / temperature).min(f32::MAX);
        let mut sum = 0.0;
        self.for_each_block(|_, block| sum += f64::from(sum_weights(block, max, scale, least)));
        sum
    }

    /// Calls `visit` with the first id and the logits of each block. The last
    /// block is filled up with minus infinity.
    fn for_each_block(&self, mut visit: impl FnMut(usize, &[f32; BLOCK])) {
        let mut replaced = self.replaced;
        let mut patched = [0.0; BLOCK];
        let (blocks, rest) = self.raw.as_chunks::<BLOCK>();
        let mut first = 0;
        for block in blocks {
            if replaced
                .first()
                .is_none_or(|&(id, _)| id as usize >= first + BLOCK)
            {
                visit(first, block);
            } else {
                patched = *block;
                replaced = patch(&mut patched, first, replaced);
                visit(first, &patched);
            }
            first += BLOCK;
        }
        if !rest.is_empty() {
            patched.fill(f32::NEG_INFINITY);
            patched[..rest.len()].copy_from_slice(rest);
            patch(&mut patched, first, replaced);
            visit(first, &patched);
        }
    }
}

/// Writes the replaced logits that lie in the block from `first` on into it,
/// and returns those that lie after it.
fn patch<'a>(
    block: &mut [f32; BLOCK],
    first: usize,
    mut replaced: &'a [(Token, f32)],
) -> &'a [(Token, f32)] {
    while let [(id, logit), rest @ ..] = replaced
        && let Some(slot) = block.get_mut(*id as usize - first)
    {
        *slot = *logit;
        replaced = rest;
    }
    replaced
}

/// Without an early exit, since only so does it compile to vector code.
fn any_above<const N: usize>(logits: &[f32; N], threshold: f32) -> bool {
    logits
        .iter()
        .fold(false, |any, &logit| any | (logit > threshold))
}

/// The highest logit of a block. NaNs are above nothing.
fn block_max(block: &[f32; BLOCK]) -> f32 {
    let higher = |a: f32, b: f32| if a > b { a } else { b };
    let mut maxima = [f32::NEG_INFINITY; LANES];
    for logits in block.as_chunks::<LANES>().0 {
        for (max, &logit) in maxima.iter_mut().zip(logits) {
            *max = higher(logit, *max);
        }
    }
    maxima.into_iter().fold(f32::NEG_INFINITY, higher)
}

/// The sum of `2^(scale * (logit - max))` over the logits of a block that are
/// `least` or more.
fn sum_weights(block: &[f32; BLOCK], max: f32, scale: f32, least: f32) -> f32 {
    let mut sums = [0.0; LANES];
    for logits in block.as_chunks::<LANES>().0 {
        for (sum, &logit) in sums.iter_mut().zip(logits) {
            // Infinite logits differ by 0 from an infinite maximum.
            let below = if logit == max { 0.0 } else { logit - max };
            let weight = exp2(below * scale);
            *sum += if logit >= least { weight } else { 0.0 };
        }
    }
    sums.iter().sum()
}

/// `2^x` for `x <= 0`, to 2e-7 of its value; 0 below `2^-126` and for NaN.
/// Unlike the standard library's, it compiles to vector code.
fn exp2(x: f32) -> f32 {
    /// Adding this leaves no bits for a fraction: it rounds to an integer,
    /// which is then found in the low bits of the sum.
    const ROUND: f32 = (3 << 22) as f32;
    /// The Taylor series of `2^x`, which needs no more terms on ±1/2.
    const C1: f32 = LN_2;
    const C2: f32 = C1 * LN_2 / 2.0;
    const C3: f32 = C2 * LN_2 / 3.0;
    const C4: f32 = C3 * LN_2 / 4.0;
    const C5: f32 = C4 * LN_2 / 5.0;
    const C6: f32 = C5 * LN_2 / 6.0;

    let rounded = x + ROUND;
    let f = x - (rounded - ROUND);
    let fraction = 1.0 + f * (C1 + f * (C2 + f * (C3 + f * (C4 + f * (C5 + f * C6)))));
    // Adds the integer to the exponent of the float.
    let bits = fraction.to_bits().wrapping_add(rounded.to_bits() << 23);
    if x > -126.0 {
        f32::from_bits(bits)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp2_is_exact_enough() {
        for i in 0..=1_260_000 {
            let x = -(i as f32) * 1e-4;
            let want = if x > -126.0 { f64::from(x).exp2() } else { 0.0 };
            let got = f64::from(exp2(x));
            assert!(
                (got - want).abs() <= 3e-7 * want,
                "2^{x}: {got}, not {want}"
            );
        }
        assert_eq!(exp2(0.0), 1.0);
        for x in [-126.0, -200.0, -1e30, f32::NEG_INFINITY, f32::NAN] {
            assert_eq!(exp2(x), 0.0, "2^{x}");
        }
    }

    #[test]
    fn a_view_reads_as_the_copy_it_replaces() {
        for n in [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5] {
            let raw: Vec<f32> = (0..n).map(|i| ((i * 37) % 101) as f32).collect();
            for step in [1, 2, 63, 64, 65, 1000] {
                let replaced: Vec<_> = (0..n).step_by(step).map(|i| (i as Token, -1.5)).collect();
                let mut copy = raw.clone();
                for &(id, logit) in &replaced {
                    copy[id as usize] = logit;
                }
                let mut read = Vec::new();
                Logits::new(&raw, &replaced).for_each(|id, logit| {
                    assert_eq!(id as usize, read.len());
                    read.push(logit);
                });
                assert_eq!(read, copy);
            }
        }
    }
}
