//! The steps of a tile's computation.

#![allow(
    clippy::needless_range_loop,
    reason = "arrays with constant indices stay in registers"
)]

use super::{COLUMN, Memory, PADDING, Tile};
use crate::attention::cells::BLOCK;
use crate::attention::math::{baseline, capped, final_factors};
use crate::simd::math::exp;
use crate::simd::{Kernel, LANES, Simd};

/// Reads the queries, times the scale.
///
/// To run it, the tensors must be valid.
pub(super) struct ReadQueries<'a, 'm> {
    pub tile: &'a Tile<'a>,
    pub memory: &'a mut Memory<'m>,
}

impl Kernel for ReadQueries<'_, '_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self { tile, memory } = self;
        let shape = tile.node.shape;
        let (lanes, tokens) = (tile.lanes(), shape.tile_tokens());
        let scale = simd.splat(shape.score_scale());
        for first in (0..lanes).step_by(LANES) {
            let head = tile.group.first + first / tokens;
            let token = first % tokens;
            let count = tile.rows.len().saturating_sub(token).min(LANES);
            for start in (0..shape.key_dim).step_by(LANES) {
                // By way of a small square: rows of queries, and those of the
                // memory, compete for the same few places in the cache.
                let mut square = [[0.0f32; LANES]; LANES];
                for (lane, row) in square[..count].iter_mut().enumerate() {
                    let query = tile.node.query(tile.rows.start + token + lane, head);
                    // SAFETY: start + 15 < key_dim.
                    unsafe {
                        let x = simd.load(query.add(start));
                        simd.store(row.as_mut_ptr(), simd.mul(x, scale));
                    }
                }
                let columns = memory.queries[start * lanes + first..].chunks_mut(lanes);
                for (i, column) in columns.take(LANES).enumerate() {
                    for (x, row) in column[..LANES].iter_mut().zip(&square) {
                        *x = row[i];
                    }
                }
            }
        }
    }
}

/// Biases of the cells of a block, `[cell][token]`.
///
/// To run it, the tensors must be valid, the cells less than the shape's.
pub(super) struct Biases<'a, 'm> {
    pub tile: &'a Tile<'a>,
    pub memory: &'a mut Memory<'m>,
    pub cells: &'a [usize],
}

impl Kernel for Biases<'_, '_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let tile = self.tile;
        let tokens = tile.node.shape.tile_tokens();
        for token in 0..tokens {
            let column = self.memory.biases[token..].iter_mut().step_by(tokens);
            let mask = match tile.node.mask(tile.rows.start + token) {
                Some(mask) if token < tile.rows.len() => mask,
                _ => {
                    column.take(self.cells.len()).for_each(|bias| *bias = 0.0);
                    continue;
                }
            };
            for (bias, &cell) in column.zip(self.cells) {
                // SAFETY: the mask has the cell.
                *bias = simd.f16(unsafe { *mask.add(cell) });
            }
        }
    }
}

/// Scores of `R` vectors of queries from `first` on, `C` cells at a time.
pub(super) struct Scores<'a, 'm, const R: usize, const C: usize> {
    pub tile: &'a Tile<'a>,
    pub memory: &'a mut Memory<'m>,
    pub first: usize,
    pub count: usize,
}

impl<const R: usize, const C: usize> Kernel for Scores<'_, '_, R, C> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self {
            tile,
            memory,
            first,
            count,
        } = self;
        const { assert!(C <= PADDING) };
        let dim = tile.node.shape.key_dim;
        let lanes = tile.lanes();
        let padded = count.next_multiple_of(C);
        assert!((first + R) * LANES <= lanes);
        assert!(memory.queries.len() >= dim * lanes);
        assert!(memory.keys.len() >= padded * dim && memory.scores.len() >= padded * lanes);
        for cell in (0..count).step_by(C) {
            let mut sums = [[simd.splat(0.0); C]; R];
            // SAFETY: cell + c < padded, and the asserts.
            unsafe {
                let queries = memory.queries.as_ptr().add(first * LANES);
                let keys = memory.keys.as_ptr().add(cell * dim);
                for i in 0..dim {
                    let mut query = [simd.splat(0.0); R];
                    for r in 0..R {
                        query[r] = simd.load(queries.add(i * lanes + r * LANES));
                    }
                    for c in 0..C {
                        let key = simd.splat(*keys.add(c * dim + i));
                        for r in 0..R {
                            sums[r][c] = simd.fma(query[r], key, sums[r][c]);
                        }
                    }
                }
                let scores = memory.scores.as_mut_ptr().add(cell * lanes + first * LANES);
                for r in 0..R {
                    for c in 0..C {
                        simd.store(scores.add(c * lanes + r * LANES), sums[r][c]);
                    }
                }
            }
        }
    }
}

/// Turns scores into weights relative to the new maxima.
pub(super) struct Weights<'a, 'm> {
    pub tile: &'a Tile<'a>,
    pub memory: &'a mut Memory<'m>,
    pub count: usize,
    pub is_biased: bool,
}

impl Kernel for Weights<'_, '_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self {
            tile,
            memory,
            count,
            is_biased,
        } = self;
        let shape = tile.node.shape;
        let (lanes, tokens) = (tile.lanes(), shape.tile_tokens());
        assert!(memory.scores.len() >= count * lanes && memory.biases.len() >= count * tokens);
        assert!(memory.maxima.len() >= lanes);
        assert!(memory.sums.len() >= lanes && memory.factors.len() >= lanes);
        let hidden = simd.splat(f32::NEG_INFINITY);
        for lane in (0..lanes).step_by(LANES) {
            let slope = simd.splat(shape.slope(tile.group.first + lane / tokens));
            // SAFETY: lanes lane to lane + 15 of `count` cells, and the asserts.
            unsafe {
                let scores = memory.scores.as_mut_ptr().add(lane);
                let biases = memory.biases.as_ptr().add(lane % tokens);
                let old = simd.load(memory.maxima.as_ptr().add(lane));
                let mut max = old;
                for cell in 0..count {
                    let at = scores.add(cell * lanes);
                    let mut score = simd.load(at);
                    if shape.soft_cap != 0.0 {
                        score = capped(simd, score, shape.soft_cap);
                        simd.store(at, score);
                    }
                    if is_biased {
                        // A cell that a row does not see stays hidden from it
                        // even if its score, another's, is not a number.
                        let bias = simd.load(biases.add(cell * tokens));
                        let seen = simd.fma(bias, slope, score);
                        score = simd.if_less(hidden, bias, seen, hidden);
                        simd.store(at, score);
                    }
                    max = simd.max(score, max);
                }
                simd.store(memory.maxima.as_mut_ptr().add(lane), max);
                let max = baseline(simd, max);
                let factor = exp(simd, simd.sub(old, max));
                simd.store(memory.factors.as_mut_ptr().add(lane), factor);
                let mut sum = simd.splat(0.0);
                for cell in 0..count {
                    let at = scores.add(cell * lanes);
                    let weight = exp(simd, simd.sub(simd.load(at), max));
                    simd.store(at, weight);
                    sum = simd.add(sum, weight);
                }
                let sums = memory.sums.as_mut_ptr().add(lane);
                simd.store(sums, simd.fma(simd.load(sums), factor, sum));
            }
        }
    }
}

/// Adds the weighted values of `count` cells to vectors `first` to `first + D`
/// of the results, `L` lanes at a time.
pub(super) struct AddValues<'a, 'm, const L: usize, const D: usize> {
    pub tile: &'a Tile<'a>,
    pub memory: &'a mut Memory<'m>,
    pub first: usize,
    pub count: usize,
}

impl<const L: usize, const D: usize> Kernel for AddValues<'_, '_, L, D> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self {
            tile,
            memory,
            first,
            count,
        } = self;
        let dim = tile.node.shape.value_dim;
        let (lanes, tokens) = (tile.lanes(), tile.node.shape.tile_tokens());
        assert!(lanes.is_multiple_of(L) && (first + D) * LANES <= dim);
        assert!(memory.results.len() >= lanes * dim && memory.values.len() >= BLOCK * dim);
        assert!(count <= BLOCK && first % 4 + D <= 4);
        assert!(memory.scores.len() >= count * lanes && memory.factors.len() >= lanes);
        for lane in (0..lanes).step_by(L) {
            if lane % tokens >= tile.rows.len() {
                continue;
            }
            // SAFETY: the asserts.
            unsafe {
                let results = memory.results.as_mut_ptr().add(lane * dim + first * LANES);
                let column = first * LANES / COLUMN;
                let values = memory
                    .values
                    .as_ptr()
                    .add(column * COLUMN * BLOCK + first * LANES % COLUMN);
                let weights = memory.scores.as_ptr().add(lane);
                let mut sums = [[simd.splat(0.0); D]; L];
                for l in 0..L {
                    let factor = simd.splat(memory.factors[lane + l]);
                    for d in 0..D {
                        sums[l][d] = simd.mul(simd.load(results.add(l * dim + d * LANES)), factor);
                    }
                }
                for cell in 0..count {
                    let mut value = [simd.splat(0.0); D];
                    for d in 0..D {
                        value[d] = simd.load(values.add(cell * COLUMN + d * LANES));
                    }
                    for l in 0..L {
                        let weight = simd.splat(*weights.add(cell * lanes + l));
                        for d in 0..D {
                            sums[l][d] = simd.fma(value[d], weight, sums[l][d]);
                        }
                    }
                }
                for l in 0..L {
                    for d in 0..D {
                        simd.store(results.add(l * dim + d * LANES), sums[l][d]);
                    }
                }
            }
        }
    }
}

/// Divides the results by the sums of the weights and writes them.
///
/// To run it, the tensors must be valid, and nobody else may use these results.
pub(super) struct Write<'a, 'm> {
    pub tile: &'a Tile<'a>,
    pub memory: &'a mut Memory<'m>,
}

impl Kernel for Write<'_, '_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) {
        let Self { tile, memory } = self;
        let (tokens, dim) = (tile.node.shape.tile_tokens(), tile.node.shape.value_dim);
        for lane in (0..tile.lanes()).step_by(LANES) {
            // SAFETY: the lanes are those of the memory; a head of the group.
            unsafe {
                let sink = tile.node.sink(tile.group.first + lane / tokens);
                let maxima = simd.load(memory.maxima[lane..][..LANES].as_ptr());
                let sums = simd.load(memory.sums[lane..][..LANES].as_ptr());
                let factors = final_factors(simd, maxima, sums, sink.map(|x| simd.splat(x)));
                simd.store(memory.factors[lane..][..LANES].as_mut_ptr(), factors);
            }
        }
        for (lane, result) in memory
            .results
            .chunks_exact(dim)
            .take(tile.lanes())
            .enumerate()
        {
            if lane % tokens >= tile.rows.len() {
                continue;
            }
            let head = tile.group.first + lane / tokens;
            let output = tile.node.output(tile.rows.start + lane % tokens, head);
            let factor = simd.splat(memory.factors[lane]);
            for i in (0..dim).step_by(LANES) {
                // SAFETY: i + 15 < value_dim.
                unsafe {
                    let x = simd.load(result.as_ptr().add(i));
                    simd.store(output.add(i), simd.mul(x, factor));
                }
            }
        }
    }
}
