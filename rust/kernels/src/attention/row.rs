//! One row of queries on its own: all query heads of a key head together, over
//! the list of the cells that the row sees.
//!
//! The list is cut into chunks of a size that only its length decides. A chunk
//! is computed by itself, by whichever thread, and chunks are merged in their
//! order, so that the result does not depend on how they were shared out.

mod kernels;
mod partial;

use std::ops::Range;

use super::CacheType;
use super::cache::{F16Row, Q8Row, Row};
use super::node::{Group, MAX_HEADS, Node};
use crate::simd::{LANES, Simd};
use kernels::{AddValues, Scores, Weights};
pub(super) use partial::{Partial, partial_floats};

/// Cells whose scores are held at a time.
const BLOCK: usize = 64;

/// A row has at most this many chunks.
pub(super) const MAX_CHUNKS: usize = 32;

/// Number of chunks of a row that sees `count` cells.
pub(super) fn chunks(count: usize) -> usize {
    count.div_ceil(chunk_cells(count))
}

/// The cells of a chunk, as a range of the list.
pub(super) fn chunk(count: usize, index: usize) -> Range<usize> {
    let cells = chunk_cells(count);
    index * cells..count.min((index + 1) * cells)
}

fn chunk_cells(count: usize) -> usize {
    count
        .div_ceil(MAX_CHUNKS)
        .next_multiple_of(BLOCK)
        .max(BLOCK)
}

/// Visible cells of a row.
#[derive(Clone, Copy)]
pub(super) struct Cells<'a> {
    pub indices: &'a [u32],
    /// Of the mask, if one is not 0.
    pub biases: Option<&'a [f32]>,
}

impl Cells<'_> {
    /// One of their chunks.
    pub(super) fn chunk(self, index: usize) -> Self {
        self.range(chunk(self.indices.len(), index))
    }

    fn range(self, range: Range<usize>) -> Self {
        Cells {
            indices: &self.indices[range.clone()],
            biases: self.biases.map(|biases| &biases[range]),
        }
    }
}

/// Floats of memory that [`Chunk::compute`] needs.
pub(super) const FLOATS: usize = MAX_HEADS * BLOCK + 4 * LANES * LANES;

/// Some of the cells that a row sees.
pub(super) struct Chunk<'a> {
    pub node: Node<'a>,
    pub row: usize,
    pub group: Group,
    pub cells: Cells<'a>,
}

impl Chunk<'_> {
    /// Computes the attention to these cells alone.
    ///
    /// # Safety
    /// The tensors are valid and the cells less than the shape's.
    pub(super) unsafe fn compute<S: Simd>(
        &self,
        simd: S,
        floats: &mut [f32],
        partial: &mut Partial,
    ) {
        let (scores, products) = floats.split_at_mut(MAX_HEADS * BLOCK);
        let count = self.cells.indices.len();
        partial.clear();
        for start in (0..count).step_by(BLOCK) {
            let cells = self.cells.range(start..count.min(start + BLOCK));
            // SAFETY: forwarded.
            unsafe { Block { chunk: self, cells }.compute(simd, scores, products, partial) };
        }
    }
}

/// Some of the cells of a chunk, at most [`BLOCK`].
struct Block<'a> {
    chunk: &'a Chunk<'a>,
    cells: Cells<'a>,
}

impl Block<'_> {
    /// Takes the cells into account.
    ///
    /// # Safety
    /// As of [`Chunk::compute`].
    unsafe fn compute<S: Simd>(
        &self,
        simd: S,
        scores: &mut [f32],
        products: &mut [f32],
        partial: &mut Partial,
    ) {
        let &Chunk {
            node, row, group, ..
        } = self.chunk;
        let shape = node.shape;
        let stream = node.stream(row);
        let keys = node.keys(group.kv_head, stream);
        let rows = &self.rows(keys, shape.key.row);
        let heads = Heads {
            chunk: self.chunk,
            rows,
            count: self.cells.indices.len(),
        };
        // SAFETY: the rows are keys.
        unsafe {
            match shape.key_type {
                CacheType::F16 => heads.scores(simd, F16Row, scores, products),
                CacheType::Q8_0 => heads.scores(simd, Q8Row, scores, products),
            }
        }
        let mut factors = [0.0; MAX_HEADS];
        for (head, scores) in scores.chunks_exact_mut(BLOCK).take(group.count).enumerate() {
            let cells = &self.cells;
            let (max, sum) = (&mut partial.maxima[head], &mut partial.sums[head]);
            let weights = Weights {
                shape,
                head: group.first + head,
                cells,
                scores,
                max,
                sum,
            };
            // SAFETY: the kernel checks its memory.
            factors[head] = unsafe { simd.run(weights) };
        }
        let values = node.values(group.kv_head, stream);
        let heads = Heads {
            rows: &self.rows(values, shape.value.row),
            ..heads
        };
        // SAFETY: the rows are values.
        unsafe {
            match shape.value_type {
                CacheType::F16 => heads.add_values(simd, F16Row, scores, &factors, partial),
                CacheType::Q8_0 => heads.add_values(simd, Q8Row, scores, &factors, partial),
            }
        }
    }

    /// The cells' rows of a cache, and that of cell 0 beyond the last of them.
    fn rows(&self, start: *const u8, stride: usize) -> [*const u8; BLOCK] {
        let mut rows = [start; BLOCK];
        for (row, &cell) in rows.iter_mut().zip(self.cells.indices) {
            *row = start.wrapping_add(cell as usize * stride);
        }
        rows
    }
}

/// Rows of keys or values for all heads of a group.
struct Heads<'a> {
    chunk: &'a Chunk<'a>,
    /// One for each cell; what follows can be read as well.
    rows: &'a [*const u8; BLOCK],
    /// Number of cells.
    count: usize,
}

impl Heads<'_> {
    /// `scores[head][cell]`, in whole vectors.
    ///
    /// # Safety
    /// The tensors are valid, the rows keys.
    unsafe fn scores<S: Simd, K: Row>(
        &self,
        simd: S,
        kind: K,
        scores: &mut [f32],
        products: &mut [f32],
    ) {
        let mut first = 0;
        while first < self.chunk.group.count {
            let scores = &mut scores[first * BLOCK..];
            let memory = (scores, &mut *products);
            // As many accumulators as the registers hold, with the keys.
            // SAFETY: forwarded.
            first += unsafe {
                match (S::REGISTERS, self.chunk.group.count - first) {
                    (32, 1) => self.score_heads::<S, K, 1, 4>(simd, kind, first, memory),
                    (32, 2) => self.score_heads::<S, K, 2, 4>(simd, kind, first, memory),
                    (32, 3) => self.score_heads::<S, K, 3, 4>(simd, kind, first, memory),
                    (32, _) => self.score_heads::<S, K, 4, 4>(simd, kind, first, memory),
                    (_, 1) => self.score_heads::<S, K, 1, 2>(simd, kind, first, memory),
                    (_, 2) => self.score_heads::<S, K, 2, 2>(simd, kind, first, memory),
                    (_, 3) => self.score_heads::<S, K, 3, 1>(simd, kind, first, memory),
                    (_, _) => self.score_heads::<S, K, 4, 1>(simd, kind, first, memory),
                }
            };
        }
    }

    /// Scores of `H` heads from `first` on; returns `H`.
    ///
    /// # Safety
    /// As of [`scores`](Self::scores).
    unsafe fn score_heads<S: Simd, K: Row, const H: usize, const C: usize>(
        &self,
        simd: S,
        kind: K,
        first: usize,
        (scores, products): (&mut [f32], &mut [f32]),
    ) -> usize {
        // SAFETY: forwarded.
        unsafe {
            simd.run(Scores::<K, H, C> {
                heads: self,
                kind,
                first,
                scores,
                products,
            })
        };
        H
    }

    /// Adds the weighted values to the results of all heads.
    ///
    /// # Safety
    /// The tensors are valid, the rows values.
    unsafe fn add_values<S: Simd, V: Row>(
        &self,
        simd: S,
        kind: V,
        weights: &[f32],
        factors: &[f32; MAX_HEADS],
        partial: &mut Partial,
    ) {
        let dim = self.chunk.node.shape.value_dim;
        let mut first = 0;
        while first < self.chunk.group.count {
            let results = &mut partial.results[first * dim..];
            let weights = &weights[first * BLOCK..];
            let memory = (weights, &factors[first..], results);
            // SAFETY: forwarded.
            first += unsafe {
                match (S::REGISTERS, self.chunk.group.count - first) {
                    (32, 1) => self.add_heads::<S, V, 1, 4>(simd, kind, memory),
                    (32, 2) => self.add_heads::<S, V, 2, 4>(simd, kind, memory),
                    (32, 3) => self.add_heads::<S, V, 3, 4>(simd, kind, memory),
                    (32, _) => self.add_heads::<S, V, 4, 4>(simd, kind, memory),
                    (_, 1) => self.add_heads::<S, V, 1, 2>(simd, kind, memory),
                    (_, 2) => self.add_heads::<S, V, 2, 2>(simd, kind, memory),
                    (_, 3) => self.add_heads::<S, V, 3, 1>(simd, kind, memory),
                    (_, _) => self.add_heads::<S, V, 4, 1>(simd, kind, memory),
                }
            };
        }
    }

    /// Adds to the results of `H` heads, `D` vectors at a time; returns `H`.
    ///
    /// # Safety
    /// As of [`add_values`](Self::add_values).
    unsafe fn add_heads<S: Simd, V: Row, const H: usize, const D: usize>(
        &self,
        simd: S,
        kind: V,
        (weights, factors, results): (&[f32], &[f32], &mut [f32]),
    ) -> usize {
        let vectors = self.chunk.node.shape.value_dim / LANES;
        let mut index = 0;
        while index < vectors {
            let results = &mut *results;
            // The number of vectors is even.
            // SAFETY: forwarded.
            unsafe {
                if index + D <= vectors {
                    let heads = self;
                    simd.run(AddValues::<V, H, D> {
                        heads,
                        kind,
                        index,
                        weights,
                        factors,
                        results,
                    });
                    index += D;
                } else {
                    let heads = self;
                    simd.run(AddValues::<V, H, 2> {
                        heads,
                        kind,
                        index,
                        weights,
                        factors,
                        results,
                    });
                    index += 2;
                }
            }
        }
        H
    }
}
