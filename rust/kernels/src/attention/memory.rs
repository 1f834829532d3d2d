//! The scratch memory of a run.

use super::Shape;
use super::cells::{self, Seen};
use super::plan::{Counts, TilePart, has_many_tiles, is_split};
use super::row::{self, MAX_CHUNKS, Partial, partial_floats};
use super::tile;

/// What a thread has of it.
pub(super) struct Memory<'a> {
    /// Of a tile, or of a chunk.
    pub floats: &'a mut [f32],
    /// Two partial results.
    pub partials: &'a mut [f32],
    /// The visible cells of a row.
    pub indices: &'a mut [u32],
    /// Their biases.
    pub biases: &'a mut [f32],
    /// What a tile sees.
    pub seen: &'a mut [Seen],
    /// What a row of it sees.
    pub before: &'a mut [u64],
    /// Empty if there are many tiles.
    pub counts: Counts<'a>,
    /// `[slot][chunk]`: partial results, of all threads.
    shared: *mut f32,
}

/// Bytes of the parts of a thread's memory, in their order.
fn sizes(shape: &Shape, threads: usize) -> [usize; 8] {
    let (tiles, rows) = match has_many_tiles(shape, threads) {
        true => (0, 0),
        false => (shape.tiles(), shape.rows()),
    };
    [
        bytes::<f32>(row::FLOATS.max(tile::floats(shape))),
        bytes::<f32>(2 * partial_floats(shape)),
        bytes::<u32>(shape.cells),
        bytes::<f32>(shape.cells),
        bytes::<Seen>(shape.cells.div_ceil(cells::BLOCK)),
        bytes::<u64>(shape.cells.div_ceil(cells::BLOCK)),
        bytes::<TilePart>(tiles),
        bytes::<u32>(rows),
    ]
}

/// Whole cache lines.
fn bytes<T>(count: usize) -> usize {
    (count * size_of::<T>()).next_multiple_of(64)
}

/// Bytes of memory that `threads` threads need.
pub(super) fn scratch(shape: &Shape, threads: usize) -> usize {
    let slots = if is_split(shape, threads) {
        threads - 1
    } else {
        0
    };
    threads * sizes(shape, threads).iter().sum::<usize>()
        + slots * MAX_CHUNKS * partial_floats(shape) * size_of::<f32>()
}

impl Memory<'_> {
    /// The memory of a thread.
    ///
    /// # Safety
    /// `scratch` is aligned to 64 bytes and has as many initialized ones as
    /// [`scratch`] says; nobody else uses this thread's.
    pub(super) unsafe fn new<'a>(
        shape: &Shape,
        scratch: *mut u8,
        thread: usize,
        threads: usize,
    ) -> Memory<'a> {
        let sizes = sizes(shape, threads);
        let all = sizes.iter().sum::<usize>();
        let mut start = thread * all;
        let [floats, partials, indices, biases, seen, before, tiles, rows] = sizes.map(|size| {
            start += size;
            (scratch.wrapping_add(start - size), size)
        });
        /// # Safety
        /// The bytes are initialized and nobody else's; all bits are a T.
        unsafe fn part<'a, T>((start, size): (*mut u8, usize)) -> &'a mut [T] {
            // SAFETY: forwarded; parts begin at multiples of 64.
            unsafe { std::slice::from_raw_parts_mut(start.cast(), size / size_of::<T>()) }
        }
        // SAFETY: parts do not overlap and hold numbers.
        unsafe {
            Memory {
                floats: part(floats),
                partials: part(partials),
                indices: part(indices),
                biases: part(biases),
                seen: part(seen),
                before: part(before),
                counts: Counts {
                    tiles: part(tiles),
                    rows: part(rows),
                },
                shared: scratch.wrapping_add(threads * all).cast(),
            }
        }
    }

    /// A chunk's partial results in common memory.
    ///
    /// # Safety
    /// `slot` is less than `threads - 1`, `chunk` than [`MAX_CHUNKS`], and
    /// nobody else uses this memory.
    pub(super) unsafe fn shared<'b>(
        &self,
        shape: &Shape,
        slot: usize,
        chunk: usize,
    ) -> Partial<'b> {
        let size = partial_floats(shape);
        let start = self.shared.wrapping_add((slot * MAX_CHUNKS + chunk) * size);
        // SAFETY: forwarded.
        Partial::new(unsafe { std::slice::from_raw_parts_mut(start, size) })
    }
}
