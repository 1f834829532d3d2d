//! Who does what.
//!
//! The work of a node is a list of items: a tile or a row, and a head group. A
//! tile is of one sequence: rows of others among them are computed one by one,
//! so that no request's bits depend on what others share with it.
//! Every thread makes the same list. Where there are few tiles, the costs of
//! the items decide: a thread has those with their middle in its part of the
//! sum. If the node is split, the chunks of a row count one by one, and what
//! several threads compute of a row goes to a slot of common memory, where it
//! is merged when all is there.

use std::ops::Range;

use super::Shape;
use super::cells::Look;
use super::row;
use super::share::Thread;

/// Rows are computed as a tile if they see at least half of the cells that one
/// of them sees times the tokens of a tile; else one by one.
const TILE_GAIN: usize = 2;

/// Cost of an item that sees no cells, in cells of a row.
const FIXED_COST: usize = 8;

/// With this many tiles a thread, it takes every n-th one.
const MANY_TILES: usize = 4;

/// With fewer rows and head groups than this a thread, rows may be split.
const FEW_ROWS: usize = 4;

/// With fewer cells, splitting does not pay.
const MANY_CELLS: usize = 128;

/// Whether rows are split among threads.
pub(super) fn is_split(shape: &Shape, threads: usize) -> bool {
    threads > 1 && shape.rows() * shape.groups() < FEW_ROWS * threads && shape.cells >= MANY_CELLS
}

/// Whether each thread takes every n-th tile.
pub(super) fn has_many_tiles(shape: &Shape, threads: usize) -> bool {
    shape.tiles() >= MANY_TILES * threads
}

/// The n-th tile of a thread if there are many: back and forth, as later tiles
/// see more.
pub(super) fn nth_tile(shape: &Shape, n: usize, thread: Thread) -> Option<usize> {
    let Thread { index, of } = thread;
    let place = if n.is_multiple_of(2) {
        index
    } else {
        of - 1 - index
    };
    Some(n * of + place).filter(|&tile| tile < shape.tiles())
}

/// What of a tile is computed as one.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct TilePart {
    /// Its rows, of those of the tile; none if they are all computed one by one.
    start: u32,
    end: u32,
    /// Number of cells that they see.
    cells: u32,
}

impl TilePart {
    pub(super) fn new(shape: &Shape, look: &Look) -> TilePart {
        let counts = &look.counts[look.run.clone()];
        let visible = counts.iter().map(|&count| count as usize).sum::<usize>();
        let is_tile =
            visible > 0 && look.union as usize * shape.tile_tokens() <= TILE_GAIN * visible;
        if !is_tile {
            return TilePart::default();
        }
        TilePart {
            start: look.run.start as u32,
            end: look.run.end as u32,
            cells: look.union,
        }
    }

    /// The rows of the part, in a tile of these.
    pub(super) fn rows(self, tile: &Range<usize>) -> Range<usize> {
        tile.start + self.start as usize..tile.start + self.end as usize
    }

    fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// What the masks show.
#[derive(Default)]
pub(super) struct Counts<'a> {
    pub tiles: &'a mut [TilePart],
    /// How many cells each row sees.
    pub rows: &'a mut [u32],
}

/// A tile or row of queries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Queries {
    Tile(usize),
    Row(usize),
}

/// Something to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Item {
    pub queries: Queries,
    /// Index of the head group.
    pub group: usize,
    /// Thread of the first chunk; of all if `slot` is none.
    pub first: usize,
    /// Thread of the last chunk.
    pub last: usize,
    /// Where chunks go if several threads have them.
    pub slot: Option<usize>,
    /// Cost of what comes before.
    start: usize,
}

/// The list of items.
pub(super) struct Plan<'a> {
    shape: &'a Shape,
    counts: &'a Counts<'a>,
    threads: usize,
    is_split: bool,
    /// Cost of all items.
    total: usize,
    tile: usize,
    /// Row within the tile.
    row: usize,
    group: usize,
    /// Cost of the items so far.
    start: usize,
    /// Slots so far.
    slots: usize,
}

impl<'a> Plan<'a> {
    pub(super) fn new(shape: &'a Shape, counts: &'a Counts<'a>, threads: usize) -> Self {
        let mut plan = Plan {
            shape,
            counts,
            threads,
            is_split: is_split(shape, threads),
            total: 0,
            tile: 0,
            row: 0,
            group: 0,
            start: 0,
            slots: 0,
        };
        let tiles = (0..shape.tiles()).map(|tile| {
            let (rows, part) = (shape.tile(tile), counts.tiles[tile]);
            let alone = rows.clone().filter(|row| !part.rows(&rows).contains(row));
            let alone = alone.map(|row| plan.cost(Queries::Row(row))).sum::<usize>();
            match part.is_empty() {
                true => alone,
                false => alone + plan.cost(Queries::Tile(tile)),
            }
        });
        plan.total = tiles.sum::<usize>() * shape.groups();
        plan
    }

    fn cost(&self, queries: Queries) -> usize {
        FIXED_COST
            + match queries {
                Queries::Row(row) => self.counts.rows[row] as usize,
                Queries::Tile(tile) => {
                    self.counts.tiles[tile].cells as usize * self.shape.tile_tokens() / TILE_GAIN
                }
            }
    }

    /// The thread of work with this middle.
    fn thread(&self, middle: usize) -> usize {
        middle * self.threads / self.total
    }

    /// Number of chunks of a row.
    pub(super) fn chunks(&self, row: usize) -> usize {
        row::chunks(self.counts.rows[row] as usize)
    }

    /// The thread of a chunk of a row that is split.
    pub(super) fn chunk_thread(&self, item: &Item, row: usize, chunk: usize) -> usize {
        let cells = row::chunk(self.counts.rows[row] as usize, chunk);
        self.thread(item.start + (cells.start + cells.end) / 2)
    }
}

impl Iterator for Plan<'_> {
    type Item = Item;

    fn next(&mut self) -> Option<Item> {
        if self.tile == self.shape.tiles() {
            return None;
        }
        let rows = self.shape.tile(self.tile);
        let part = self.counts.tiles[self.tile];
        let is_tile = !part.is_empty() && self.row == part.start as usize;
        let queries = if is_tile {
            Queries::Tile(self.tile)
        } else {
            Queries::Row(rows.start + self.row)
        };
        let cost = self.cost(queries);
        let thread = self.thread(self.start + cost / 2);
        let mut item = Item {
            queries,
            group: self.group,
            first: thread,
            last: thread,
            slot: None,
            start: self.start,
        };
        if let Queries::Row(row) = queries
            && self.is_split
            && self.chunks(row) > 0
        {
            item.first = self.chunk_thread(&item, row, 0);
            item.last = self.chunk_thread(&item, row, self.chunks(row) - 1);
            if item.first != item.last {
                item.slot = Some(self.slots);
                self.slots += 1;
            }
        }
        self.start += cost;
        self.group += 1;
        if self.group == self.shape.groups() {
            self.group = 0;
            self.row = if is_tile {
                part.end as usize
            } else {
                self.row + 1
            };
            if self.row == rows.len() {
                self.row = 0;
                self.tile += 1;
            }
        }
        Some(item)
    }
}
