//! How many blocks of the pool are free, and which sequence holds which others.
//!
//! A model gives a sequence its cells by blocks: a new one when that of its last
//! cell is full, or goes on with somebody else's cells. Only without a free
//! block it takes single cells between those of others. Then they no longer lie
//! in the order of the tokens, and sums over them round otherwise. The places of
//! blocks do not matter here, so they only have names.

/// The cells of a sequence in one block, at positions that follow each other.
#[derive(Debug, Clone, Copy)]
struct Part {
    block: usize,
    /// Position of the first of them.
    from: usize,
    /// Position behind the block's last cell.
    end: usize,
}

#[derive(Debug)]
pub(super) struct Blocks {
    /// Cells of a block.
    size: usize,
    /// Blocks of the pool.
    total: usize,
    /// By block: parts that lie in it. More blocks than `total` are held where
    /// sequences have cells in those of others.
    parts: Vec<usize>,
    /// By sequence, in the order of positions.
    chains: Vec<Vec<Part>>,
    /// By sequence: cells that are in use, which are those up to a position.
    lens: Vec<usize>,
}

impl Blocks {
    pub fn new(sequences: usize, cells: usize, size: usize) -> Self {
        let total = cells.div_ceil(size);
        Self {
            size,
            total,
            parts: vec![0; total],
            chains: vec![Vec::new(); sequences],
            lens: vec![0; sequences],
        }
    }

    /// Blocks that nobody holds.
    pub fn free(&self) -> usize {
        let held = self.parts.iter().filter(|&&parts| parts > 0).count();
        self.total.saturating_sub(held)
    }

    /// Blocks that `at` takes beyond its own until it has cells up to `len`. One
    /// is counted as well where another sequence could be first in its last one.
    pub fn missing(&self, at: usize, len: usize) -> usize {
        let have = self.lens[at] + self.rest(at, false);
        len.saturating_sub(have).div_ceil(self.size)
    }

    /// The model has computed the cells of `at` up to `len`.
    pub fn place(&mut self, at: usize, len: usize) {
        while self.lens[at] < len {
            let mut rest = self.rest(at, true);
            if rest == 0 {
                rest = self.size;
                self.add(at);
            }
            self.lens[at] = len.min(self.lens[at] + rest);
        }
    }

    /// `to`, which has no cells, shares the first `len` of `from`.
    pub fn copy(&mut self, from: usize, to: usize, len: usize) {
        let parts = self.chains[from].iter();
        let shared: Vec<Part> = parts.copied().take_while(|part| part.from < len).collect();
        for part in &shared {
            self.parts[part.block] += 1;
        }
        self.chains[to] = shared;
        self.lens[to] = len;
    }

    /// `at` has only its first `len` cells left.
    pub fn limit(&mut self, at: usize, len: usize) {
        while let Some(part) = self.chains[at].pop_if(|part| part.from >= len) {
            self.parts[part.block] -= 1;
        }
        self.lens[at] = self.lens[at].min(len);
    }

    /// `at` drops its cells at positions `from..to`, and those behind them move
    /// to the front.
    pub fn shift(&mut self, at: usize, from: usize, to: usize) {
        let by = to - from;
        let parts: Vec<(Part, usize)> = self.parts_of(at).collect();
        self.chains[at].clear();
        for (part, end) in parts {
            self.parts[part.block] -= 1;
            let before = (part.from < from).then_some(part);
            let behind = (end > to).then(|| Part {
                from: part.from.max(to) - by,
                end: part.end - by,
                ..part
            });
            for left in before.into_iter().chain(behind) {
                self.parts[part.block] += 1;
                self.chains[at].push(left);
            }
        }
        self.lens[at] -= by;
    }

    /// Where the last block of `at` begins, if it is of nobody else.
    pub fn last(&self, at: usize) -> Option<usize> {
        let part = self.chains[at].last()?;
        (self.parts[part.block] == 1).then_some(part.from)
    }

    /// Whether all blocks that are held are those of `sequences`.
    pub fn are_all_of(&self, sequences: impl Iterator<Item = usize>) -> bool {
        let mut others = self.parts.clone();
        for part in sequences.flat_map(|at| &self.chains[at]) {
            others[part.block] = 0;
        }
        others.iter().all(|&parts| parts == 0)
    }

    /// Begins a new block.
    fn add(&mut self, at: usize) {
        let free = self.parts.iter().position(|&parts| parts == 0);
        let block = free.unwrap_or(self.parts.len());
        self.parts.resize(self.parts.len().max(block + 1), 0);
        self.parts[block] = 1;
        let from = self.lens[at];
        let end = from + self.size;
        self.chains[at].push(Part { block, from, end });
    }

    /// Cells of its last block that `at` can take: none if another sequence has
    /// gone on there, or would do so first.
    fn rest(&self, at: usize, is_first: bool) -> usize {
        let Some(tip) = self.chains[at].last() else {
            return 0;
        };
        let filled = |part: &Part, end: usize| self.size - (part.end - end);
        let own = filled(tip, self.lens[at]);
        let bound = own + usize::from(is_first);
        let is_barred = self.parts[tip.block] > 1
            && (0..self.chains.len())
                .filter(|&other| other != at)
                .flat_map(|other| self.parts_of(other))
                .any(|(part, end)| part.block == tip.block && filled(&part, end) >= bound);
        if is_barred { 0 } else { self.size - own }
    }

    /// The parts of a sequence, and the position behind the last cell of each.
    fn parts_of(&self, at: usize) -> impl Iterator<Item = (Part, usize)> {
        let chain = &self.chains[at];
        let ends = chain.iter().skip(1).map(|next| next.from);
        chain.iter().copied().zip(ends.chain([self.lens[at]]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks() -> Blocks {
        Blocks::new(4, 100, 10)
    }

    #[test]
    fn a_sequence_takes_a_block_when_its_last_is_full() {
        let mut blocks = blocks();
        assert_eq!((blocks.free(), blocks.missing(0, 21)), (10, 3));
        blocks.place(0, 21);
        assert_eq!((blocks.free(), blocks.last(0)), (7, Some(20)));
        assert_eq!((blocks.missing(0, 30), blocks.missing(0, 31)), (0, 1));
        blocks.limit(0, 20);
        assert_eq!((blocks.free(), blocks.missing(0, 21)), (8, 1));
        blocks.limit(0, 0);
        assert_eq!((blocks.free(), blocks.last(0)), (10, None));
    }

    #[test]
    fn who_shares_a_part_of_a_block_goes_on_in_another() {
        let mut blocks = blocks();
        blocks.place(0, 38);
        blocks.copy(0, 1, 24);
        assert_eq!((blocks.free(), blocks.last(0)), (6, Some(30)));
        assert_eq!((blocks.missing(1, 34), blocks.missing(1, 35)), (1, 2));
        blocks.place(1, 34);
        assert_eq!((blocks.free(), blocks.last(1)), (5, Some(24)));
        // What is behind the shared cells is free for the one that goes on.
        blocks.limit(0, 30);
        blocks.copy(0, 2, 26);
        blocks.limit(0, 0);
        assert_eq!((blocks.missing(2, 30), blocks.missing(2, 31)), (0, 1));
        assert!(blocks.are_all_of([1, 2].into_iter()));
        assert!(!blocks.are_all_of([2].into_iter()));
    }

    #[test]
    fn only_the_first_of_two_that_end_alike_goes_on() {
        let mut blocks = blocks();
        blocks.place(0, 15);
        blocks.copy(0, 1, 15);
        assert_eq!((blocks.missing(0, 16), blocks.missing(1, 16)), (1, 1));
        blocks.place(1, 16);
        blocks.place(0, 16);
        assert_eq!((blocks.last(1), blocks.last(0)), (None, Some(15)));
        assert_eq!(blocks.free(), 7);
    }

    #[test]
    fn a_gap_frees_the_blocks_that_lie_in_it() {
        let mut blocks = blocks();
        blocks.place(0, 38);
        blocks.shift(0, 4, 7);
        assert_eq!((blocks.free(), blocks.lens[0]), (6, 35));
        blocks.shift(0, 4, 22);
        assert_eq!((blocks.free(), blocks.lens[0]), (7, 17));
        assert_eq!((blocks.missing(0, 19), blocks.missing(0, 20)), (0, 1));
        blocks.limit(0, 3);
        assert_eq!((blocks.free(), blocks.last(0)), (9, Some(0)));
        blocks.limit(0, 0);
        assert_eq!(blocks.free(), 10);
    }

    #[test]
    fn more_can_be_held_than_there_are() {
        let mut blocks = Blocks::new(9, 20, 10);
        for at in 0..9 {
            blocks.place(at, 2);
        }
        assert_eq!((blocks.free(), blocks.missing(0, 11)), (0, 1));
        for at in 0..9 {
            blocks.limit(at, 0);
        }
        assert_eq!(blocks.free(), 2);
    }
}
