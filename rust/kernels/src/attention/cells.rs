//! Which cells of the cache a mask shows.

use std::ops::Range;

use super::node::{MAX_TOKENS, Node};
use super::row::Cells;
use crate::simd::{HIDDEN, Kernel, Simd};

/// Cells whose visibility is one word: bit i is cell i of the block.
pub(super) const BLOCK: usize = 64;

/// What the rows of a tile see of a block of cells.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    /// Cells that a row sees.
    pub any: u64,
    /// Cells that all rows see, without a bias.
    pub plain: u64,
}

/// What a row sees of the block at `start`: all cells and those without bias.
///
/// # Safety
/// A mask has all cells of the shape.
#[inline(always)]
unsafe fn block<S: Simd>(
    simd: S,
    mask: Option<*const u16>,
    start: usize,
    cells: usize,
) -> (u64, u64) {
    let count = BLOCK.min(cells - start);
    let Some(mask) = mask else {
        let all = u64::MAX >> (BLOCK - count);
        return (all, all);
    };
    // SAFETY: cells from start to start + count.
    unsafe {
        if count == BLOCK {
            let (low, zero_low) = simd.scan(mask.add(start));
            let (high, zero_high) = simd.scan(mask.add(start + BLOCK / 2));
            let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << (BLOCK / 2);
            (join(low, high), join(zero_low, zero_high))
        } else {
            (0..count).fold((0, 0), |(any, plain), i| {
                let bits = *mask.add(start + i);
                let bit = |is| u64::from(is) << i;
                (any | bit(bits != HIDDEN), plain | bit(bits & 0x7fff == 0))
            })
        }
    }
}

/// How many cells a row sees, and whether it has a bias that is not 0.
#[derive(Clone, Copy, Default)]
pub(super) struct List {
    pub count: usize,
    pub is_biased: bool,
}

impl List {
    /// The cells, of what was listed.
    pub(super) fn cells<'a>(&self, indices: &'a [u32], biases: &'a [f32]) -> Cells<'a> {
        Cells {
            indices: &indices[..self.count],
            biases: self.is_biased.then(|| &biases[..self.count]),
        }
    }
}

/// Lists the cells that a row sees, with their biases.
///
/// To run it, the tensors must be valid.
pub(super) struct ListCells<'a> {
    pub node: Node<'a>,
    pub row: usize,
    pub indices: &'a mut [u32],
    pub biases: &'a mut [f32],
}

impl Kernel for ListCells<'_> {
    type Output = List;

    #[inline(always)]
    unsafe fn run<S: Simd>(self, simd: S) -> List {
        let (mask, cells) = (self.node.mask(self.row), self.node.shape.cells);
        let (indices, biases) = (&mut self.indices[..cells], &mut self.biases[..cells]);
        let mut list = List::default();
        for start in (0..cells).step_by(BLOCK) {
            // SAFETY: the mask has all cells.
            let (mut any, plain) = unsafe { block(simd, mask, start, cells) };
            let is_biased = any & !plain != 0;
            list.is_biased |= is_biased;
            while any != 0 {
                let cell = start + any.trailing_zeros() as usize;
                any &= any - 1;
                indices[list.count] = cell as u32;
                biases[list.count] = match mask {
                    // SAFETY: one of the cells.
                    Some(mask) if is_biased => simd.f16(unsafe { *mask.add(cell) }),
                    _ => 0.0,
                };
                list.count += 1;
            }
        }
        list
    }
}

/// What the rows of a tile see.
pub(super) struct Look {
    /// The most rows after each other that are of one sequence, as rows of the
    /// tile.
    pub run: Range<usize>,
    /// Number of cells that one of them sees.
    pub union: u32,
    /// Number of cells that each row of the tile sees.
    pub counts: [u32; MAX_TOKENS],
}

/// Looks at the masks of a tile; sets what the rows of its run see of each
/// block.
///
/// To run it, the tensors must be valid.
pub(super) struct LookAtTile<'a> {
    pub node: Node<'a>,
    pub rows: Range<usize>,
    pub seen: &'a mut [Seen],
    /// What the row before saw of each block.
    pub before: &'a mut [u64],
}

impl Kernel for LookAtTile<'_> {
    type Output = Look;

    #[inline(always)]
    unsafe fn run<S: Simd>(mut self, simd: S) -> Look {
        let rows = self.rows.clone();
        // SAFETY: forwarded.
        let mut look = unsafe { self.look(simd, rows.clone()) };
        if look.run.len() < rows.len() {
            let run = rows.start + look.run.start..rows.start + look.run.end;
            // SAFETY: forwarded.
            look.union = unsafe { self.look(simd, run).union };
        }
        look
    }
}

impl LookAtTile<'_> {
    /// Looks at some of the rows.
    #[inline(always)]
    unsafe fn look<S: Simd>(&mut self, simd: S, rows: Range<usize>) -> Look {
        let cells = self.node.shape.cells;
        let blocks = cells.div_ceil(BLOCK);
        let (seen, before) = (&mut self.seen[..blocks], &mut self.before[..blocks]);
        seen.fill(Seen {
            any: 0,
            plain: u64::MAX,
        });
        let mut counts = [0; MAX_TOKENS];
        let (mut run, mut start) = (0..0, 0);
        let mut newest = None;
        for (index, row) in rows.enumerate() {
            let mask = self.node.mask(row);
            let mut change = Change::default();
            for (block_index, (seen, before)) in seen.iter_mut().zip(&mut *before).enumerate() {
                let first = block_index * BLOCK;
                // SAFETY: the mask has all cells.
                let (any, plain) = unsafe { block(simd, mask, first, cells) };
                counts[index] += any.count_ones();
                seen.any |= any;
                seen.plain &= plain;
                change.note(first, *before, any);
                *before = any;
            }
            if index > 0 && !change.is_next_token(newest) {
                start = index;
            }
            newest = change.gained_last;
            if index + 1 - start > run.len() {
                run = start..index + 1;
            }
        }
        Look {
            run,
            union: seen.iter().map(|seen| seen.any.count_ones()).sum(),
            counts,
        }
    }
}

/// How what a row sees differs from what the row before it sees.
#[derive(Default)]
struct Change {
    gained: u32,
    dropped: u32,
    /// The last cell of those.
    gained_last: Option<usize>,
    dropped_last: Option<usize>,
}

impl Change {
    /// Notes a block of cells that begins at `first`.
    #[inline(always)]
    fn note(&mut self, first: usize, before: u64, any: u64) {
        let last = |cells: u64| (cells != 0).then(|| first + cells.ilog2() as usize);
        let (gained, dropped) = (any & !before, before & !any);
        self.gained += gained.count_ones();
        self.dropped += dropped.count_ones();
        self.gained_last = last(gained).or(self.gained_last);
        self.dropped_last = last(dropped).or(self.dropped_last);
    }

    /// Whether the row is of the token after that of the row before it, which
    /// saw the cell `newest` as the first one: it sees one more cell, its own,
    /// and with a window no longer the oldest. A row of another sequence does
    /// not see the newest cell, however much the two share.
    #[inline(always)]
    fn is_next_token(&self, newest: Option<usize>) -> bool {
        let is_window = self.dropped == 1 && self.dropped_last != newest;
        self.gained <= 1 && (self.dropped == 0 || is_window)
    }
}
