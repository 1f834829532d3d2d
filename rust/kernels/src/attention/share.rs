//! A thread's share of a run.

use std::ops::Range;

use super::Shape;
use super::cells::{List, ListCells, Look, LookAtTile};
use super::memory::Memory;
use super::node::{Group, Node};
use super::plan::{Plan, Queries, TilePart, has_many_tiles, nth_tile};
use super::row::{Chunk, Partial, chunks, partial_floats};
use super::tile::Tile;
use crate::simd::Simd;

/// A thread of a run.
#[derive(Clone, Copy)]
pub(super) struct Thread {
    pub index: usize,
    /// Of how many.
    pub of: usize,
}

/// A thread's share of the work.
///
/// For all functions, as for `Attention::compute` and `merge`: the tensors are
/// valid, and what is this thread's is written by no other.
pub(super) struct Share<'a, S> {
    simd: S,
    node: Node<'a>,
    shape: &'a Shape,
    thread: Thread,
    memory: Memory<'a>,
}

impl<'a, S: Simd> Share<'a, S> {
    /// The memory is of `memory::scratch` bytes.
    pub(super) unsafe fn new(simd: S, node: Node<'a>, scratch: *mut u8, thread: Thread) -> Self {
        // SAFETY: forwarded.
        let memory = unsafe { Memory::new(node.shape, scratch, thread.index, thread.of) };
        Share {
            simd,
            node,
            shape: node.shape,
            thread,
            memory,
        }
    }

    /// All but merging.
    pub(super) unsafe fn compute(&mut self) {
        // SAFETY: forwarded.
        unsafe {
            if has_many_tiles(self.shape, self.thread.of) {
                self.tiles()
            } else {
                self.items()
            }
        }
    }

    /// Every n-th tile.
    unsafe fn tiles(&mut self) {
        let (shape, thread) = (self.shape, self.thread);
        for tile in (0..).map_while(|n| nth_tile(shape, n, thread)) {
            // SAFETY: forwarded; the tile is this thread's.
            unsafe {
                let rows = shape.tile(tile);
                let part = TilePart::new(shape, &self.look(tile)).rows(&rows);
                if !part.is_empty() {
                    (0..shape.groups()).for_each(|group| self.tile(&part, shape.group(group)));
                }
                for row in rows.filter(|row| !part.contains(row)) {
                    let list = self.list(row);
                    (0..shape.groups()).for_each(|group| self.row(list, row, shape.group(group)));
                }
            }
        }
    }

    /// What the plan says.
    unsafe fn items(&mut self) {
        let shape = self.shape;
        for tile in 0..shape.tiles() {
            // SAFETY: forwarded.
            let look = unsafe { self.look(tile) };
            let rows = shape.tile(tile);
            let counts = &mut self.memory.counts;
            counts.tiles[tile] = TilePart::new(shape, &look);
            counts.rows[rows.clone()].copy_from_slice(&look.counts[..rows.len()]);
        }
        let counts = std::mem::take(&mut self.memory.counts);
        let mut plan = Plan::new(shape, &counts, self.thread.of);
        // What the memory says of visible cells is about these.
        let mut current = Queries::Tile(shape.tiles() - 1);
        let mut list = List::default();
        while let Some(item) = plan.next() {
            if !(item.first..=item.last).contains(&self.thread.index) {
                continue;
            }
            let is_new = std::mem::replace(&mut current, item.queries) != item.queries;
            let group = shape.group(item.group);
            // SAFETY: forwarded; the item, or the chunk, is this thread's.
            unsafe {
                match item.queries {
                    Queries::Tile(tile) => {
                        if is_new {
                            self.look(tile);
                        }
                        let part = counts.tiles[tile].rows(&shape.tile(tile));
                        self.tile(&part, group);
                    }
                    Queries::Row(row) => {
                        if is_new {
                            list = self.list(row);
                        }
                        let Some(slot) = item.slot else {
                            self.row(list, row, group);
                            continue;
                        };
                        for chunk in 0..chunks(list.count) {
                            if plan.chunk_thread(&item, row, chunk) == self.thread.index {
                                let mut partial = self.memory.shared(shape, slot, chunk);
                                self.chunk(list, row, group, chunk, &mut partial);
                            }
                        }
                    }
                }
            }
        }
    }

    /// Merges the rows of which this thread has computed the first chunk.
    pub(super) unsafe fn merge(&mut self) {
        let shape = self.shape;
        // As this thread has left them.
        let counts = std::mem::take(&mut self.memory.counts);
        let mut plan = Plan::new(shape, &counts, self.thread.of);
        while let Some(item) = plan.next() {
            let (Queries::Row(row), Some(slot)) = (item.queries, item.slot) else {
                continue;
            };
            if item.first == self.thread.index {
                let group = shape.group(item.group);
                // SAFETY: forwarded; the chunks are complete.
                unsafe {
                    let mut sum = self.memory.shared(shape, slot, 0);
                    for chunk in 1..plan.chunks(row) {
                        let chunk = self.memory.shared(shape, slot, chunk);
                        sum.merge(self.simd, &chunk, group, shape);
                    }
                    sum.write(self.simd, self.node, row, group);
                }
            }
        }
    }

    /// Looks at a tile's masks.
    unsafe fn look(&mut self, tile: usize) -> Look {
        let rows = self.shape.tile(tile);
        let look = LookAtTile {
            node: self.node,
            rows,
            seen: self.memory.seen,
            before: self.memory.before,
        };
        // SAFETY: forwarded.
        unsafe { self.simd.run(look) }
    }

    /// A head group of the part of a tile that was looked at last.
    unsafe fn tile(&mut self, rows: &Range<usize>, group: Group) {
        let tile = Tile {
            node: self.node,
            rows: rows.clone(),
            group,
            seen: &*self.memory.seen,
        };
        // SAFETY: forwarded.
        unsafe { tile.compute(self.simd, self.memory.floats) };
    }

    /// Lists the cells that a row sees.
    unsafe fn list(&mut self, row: usize) -> List {
        let Memory {
            indices, biases, ..
        } = &mut self.memory;
        let list = ListCells {
            node: self.node,
            row,
            indices,
            biases,
        };
        // SAFETY: forwarded.
        unsafe { self.simd.run(list) }
    }

    /// A head group of the row whose cells were listed last.
    unsafe fn row(&mut self, list: List, row: usize, group: Group) {
        let partials = std::mem::take(&mut self.memory.partials);
        let (sum, part) = partials.split_at_mut(partial_floats(self.shape));
        let [mut sum, mut part] = [sum, part].map(Partial::new);
        // SAFETY: forwarded.
        unsafe {
            self.chunk(list, row, group, 0, &mut sum);
            for chunk in 1..chunks(list.count) {
                self.chunk(list, row, group, chunk, &mut part);
                sum.merge(self.simd, &part, group, self.shape);
            }
            sum.write(self.simd, self.node, row, group);
        }
        self.memory.partials = partials;
    }

    /// A chunk of it.
    unsafe fn chunk(
        &mut self,
        list: List,
        row: usize,
        group: Group,
        index: usize,
        partial: &mut Partial,
    ) {
        let cells = list
            .cells(self.memory.indices, self.memory.biases)
            .chunk(index);
        let chunk = Chunk {
            node: self.node,
            row,
            group,
            cells,
        };
        // SAFETY: forwarded.
        unsafe { chunk.compute(self.simd, self.memory.floats, partial) }
    }
}
