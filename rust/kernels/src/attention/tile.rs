//! Rows of queries that see about the same cells, as a tile.
//!
//! A lane is a query: 16 tokens of one head are a vector. Cells are taken in
//! blocks; of a block only those cells that a row of the tile sees. Scores are
//! kept as `[cell][lane]`, so that maxima and sums of the softmax need no
//! operation across lanes, and neither keys nor values are transposed.

mod kernels;
mod rows;
mod strays;

use std::ops::Range;

use super::Shape;
use super::cells::{BLOCK, Seen};
use super::node::{Group, Node};
use crate::simd::{LANES, Simd};
use kernels::{AddValues, Biases, ReadQueries, Scores, Weights, Write};
use rows::Rows;
use strays::Strays;

/// Room for the keys that are computed beyond the last one.
const PADDING: usize = 8;

/// Values are stored in columns of this many floats: with whole rows of a power
/// of two, the parts that are added together would compete for the same few
/// places in the cache.
const COLUMN: usize = 4 * LANES;

/// Memory of a tile, in floats.
struct Memory<'a> {
    /// Queries times the scale `[key_dim][lane]`.
    queries: &'a mut [f32],
    /// `[cell][key_dim]`
    keys: &'a mut [f32],
    /// `[value_dim / COLUMN][cell][COLUMN]`
    values: &'a mut [f32],
    /// `[cell][lane]`: scores, then weights.
    scores: &'a mut [f32],
    /// `[cell][token]`
    biases: &'a mut [f32],
    /// `[lane]`: largest score so far.
    maxima: &'a mut [f32],
    /// `[lane]`: sum of the weights so far.
    sums: &'a mut [f32],
    /// `[lane]`: what earlier results are to be multiplied by.
    factors: &'a mut [f32],
    /// `[lane][value_dim]`
    results: &'a mut [f32],
}

/// Sizes of the parts of [`Memory`].
fn sizes(shape: &Shape) -> [usize; 9] {
    let lanes = shape.tile_tokens() * shape.group_heads();
    [
        shape.key_dim * lanes,
        (BLOCK + PADDING) * shape.key_dim,
        BLOCK * shape.value_dim.next_multiple_of(COLUMN),
        (BLOCK + PADDING) * lanes,
        BLOCK * shape.tile_tokens(),
        lanes,
        lanes,
        lanes,
        lanes * shape.value_dim,
    ]
}

/// Floats of memory that a tile needs.
pub(super) fn floats(shape: &Shape) -> usize {
    sizes(shape).iter().sum()
}

impl<'a> Memory<'a> {
    fn new(shape: &Shape, floats: &'a mut [f32]) -> Self {
        let mut rest = floats;
        let [
            queries,
            keys,
            values,
            scores,
            biases,
            maxima,
            sums,
            factors,
            results,
        ] = sizes(shape).map(|size| rest.split_off_mut(..size).expect("enough memory"));
        Memory {
            queries,
            keys,
            values,
            scores,
            biases,
            maxima,
            sums,
            factors,
            results,
        }
    }
}

/// One head group of a tile.
pub(super) struct Tile<'a> {
    pub node: Node<'a>,
    /// At most as many as a tile has, of one stream.
    pub rows: Range<usize>,
    pub group: Group,
    /// Of each block of cells.
    pub seen: &'a [Seen],
}

impl Tile<'_> {
    /// Computes the results.
    ///
    /// # Safety
    /// The tensors are valid, and nobody else uses the results of these rows
    /// and heads.
    pub(super) unsafe fn compute<S: Simd>(&self, simd: S, floats: &mut [f32]) {
        let memory = &mut Memory::new(self.node.shape, floats);
        memory.maxima.fill(f32::NEG_INFINITY);
        memory.sums.fill(0.0);
        memory.results.fill(0.0);
        // SAFETY: forwarded.
        unsafe {
            simd.run(ReadQueries { tile: self, memory });
            for (index, seen) in self.seen.iter().enumerate() {
                if seen.any != 0 {
                    self.block(simd, memory, index * BLOCK, *seen);
                }
            }
            simd.run(Write { tile: self, memory });
        }
    }

    /// Lanes of the tile: tokens of a tile (some may be unused) times heads.
    fn lanes(&self) -> usize {
        self.node.shape.tile_tokens() * self.group.count
    }

    /// Takes the cells of a block into account.
    ///
    /// # Safety
    /// The tensors are valid.
    unsafe fn block<S: Simd>(&self, simd: S, memory: &mut Memory, start: usize, seen: Seen) {
        let shape = self.node.shape;
        let mut cells = [0; BLOCK];
        let mut count = 0;
        let mut any = seen.any;
        while any != 0 {
            cells[count] = start + any.trailing_zeros() as usize;
            any &= any - 1;
            count += 1;
        }
        let cells = &cells[..count];
        let is_biased = seen.any & !seen.plain != 0;
        let stream = self.node.stream(self.rows.start);
        let keys = self.node.keys(self.group.kv_head, stream);
        let values = self.node.values(self.group.kv_head, stream);
        // SAFETY: the cells are less than the shape's; forwarded.
        unsafe {
            let floats = &mut *memory.keys;
            let (stride, dim) = (shape.key.row, shape.key_dim);
            Rows {
                start: keys,
                stride,
                cells,
                dim,
                column: dim,
                floats,
            }
            .read(simd, shape.key_type);
            memory.keys[count * shape.key_dim..][..PADDING * shape.key_dim].fill(0.0);
            self.scores(simd, memory, count);
            if is_biased {
                simd.run(Biases {
                    tile: self,
                    memory,
                    cells,
                });
            }
            simd.run(Weights {
                tile: self,
                memory,
                count,
                is_biased,
            });
            let floats = &mut *memory.values;
            let (stride, dim) = (shape.value.row, shape.value_dim);
            Rows {
                start: values,
                stride,
                cells,
                dim,
                column: COLUMN,
                floats,
            }
            .read(simd, shape.value_type);
            let strays = match is_biased {
                true => Strays::take(simd, memory, dim, count),
                false => Strays::NONE,
            };
            self.add_values(simd, memory, count);
            strays.add(self, memory);
        }
    }

    /// Products of all queries with the keys of `count` cells.
    fn scores<S: Simd>(&self, simd: S, memory: &mut Memory, count: usize) {
        let vectors = self.lanes() / LANES;
        let mut first = 0;
        while first < vectors {
            // As many accumulators as the registers hold, with the vectors of
            // queries and a key.
            first += match (S::REGISTERS, vectors - first) {
                (32, 1) => self.score_vectors::<S, 1, 8>(simd, memory, first, count),
                (32, 3) => self.score_vectors::<S, 3, 8>(simd, memory, first, count),
                (32, _) => self.score_vectors::<S, 2, 8>(simd, memory, first, count),
                _ => self.score_vectors::<S, 1, 6>(simd, memory, first, count),
            };
        }
    }

    /// Scores of `R` vectors of queries from `first` on; returns `R`.
    fn score_vectors<S: Simd, const R: usize, const C: usize>(
        &self,
        simd: S,
        memory: &mut Memory,
        first: usize,
        count: usize,
    ) -> usize {
        // SAFETY: the kernel checks its memory.
        unsafe {
            simd.run(Scores::<R, C> {
                tile: self,
                memory,
                first,
                count,
            })
        };
        R
    }

    /// Adds the weighted values of `count` cells to the results.
    fn add_values<S: Simd>(&self, simd: S, memory: &mut Memory, count: usize) {
        let vectors = self.node.shape.value_dim / LANES;
        let mut first = 0;
        while first < vectors {
            first += match (S::REGISTERS, vectors - first) {
                (32, 4..) => self.add_vectors::<S, 4, 4>(simd, memory, first, count),
                (32, _) => self.add_vectors::<S, 4, 2>(simd, memory, first, count),
                _ => self.add_vectors::<S, 4, 1>(simd, memory, first, count),
            };
        }
    }

    /// Adds to vectors `first` to `first + D` of the results; returns `D`.
    fn add_vectors<S: Simd, const L: usize, const D: usize>(
        &self,
        simd: S,
        memory: &mut Memory,
        first: usize,
        count: usize,
    ) -> usize {
        // SAFETY: the kernel checks its memory.
        unsafe {
            simd.run(AddValues::<L, D> {
                tile: self,
                memory,
                first,
                count,
            })
        };
        D
    }
}
