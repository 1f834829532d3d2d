//! A unified KV cache: cells that each have a token, one position and a set of
//! sequences. A sequence gets them by blocks, as with llama.cpp
//! (`rust/engine/llama/placing.h`).

use crate::model::{Row, SeqId, Token};

#[derive(Debug, Clone, Copy)]
struct Cell {
    token: Token,
    position: i32,
    /// One bit a sequence; never 0.
    sequences: u64,
}

#[derive(Debug)]
pub(super) struct Cells {
    cells: Vec<Option<Cell>>,
    /// Cells of a block.
    block: usize,
    /// Cells that lie between others because there was no free block.
    scattered: usize,
    /// Tokens that a token sees, itself included; `None`: all.
    window: Option<i32>,
    /// By sequence: positions that slid out of the window and are lost.
    lost: Vec<i32>,
}

impl Cells {
    pub fn new(room: usize, block: usize, sequences: usize, window: Option<usize>) -> Self {
        assert!(sequences <= u64::BITS as usize);
        Self {
            cells: vec![None; room],
            block,
            scattered: 0,
            window: window.map(|window| window as i32),
            lost: vec![0; sequences],
        }
    }

    pub fn used(&self) -> usize {
        self.cells.iter().flatten().count()
    }

    pub fn free(&self) -> usize {
        self.cells.len() - self.used()
    }

    /// Cells so far for which there was no free block.
    pub fn scattered(&self) -> usize {
        self.scattered
    }

    /// The positions of `sequence` in the order of their cells.
    pub fn order(&self, sequence: SeqId) -> Vec<usize> {
        let bit = self.bit(sequence);
        let cells = self.cells.iter().flatten();
        cells
            .filter(|cell| cell.sequences & bit != 0)
            .map(|cell| cell.position as usize)
            .collect()
    }

    /// The tokens that `sequence` sees. Their positions must be 0, 1, 2 and so
    /// on, each once.
    pub fn tokens(&self, sequence: SeqId) -> Vec<Token> {
        let bit = self.bit(sequence);
        let mut seen: Vec<(i32, Token)> = self
            .cells
            .iter()
            .flatten()
            .filter(|cell| cell.sequences & bit != 0)
            .map(|cell| (cell.position, cell.token))
            .collect();
        seen.sort_unstable();
        for (expected, (position, _)) in (0..).zip(&seen) {
            assert_eq!(
                *position, expected,
                "a gap or a double in sequence {sequence}"
            );
        }
        seen.into_iter().map(|(_, token)| token).collect()
    }

    /// What the next one of each sequence no longer sees is lost, before the
    /// rows of a batch come.
    pub fn slide(&mut self, rows: &[Row]) {
        let Some(window) = self.window else { return };
        for row in rows {
            let next = self.tokens(row.sequence).len() as i32;
            let lost = &mut self.lost[row.sequence as usize];
            *lost = (*lost).max(next + 1 - window);
        }
    }

    /// Takes a cell for the row, which must be the next one of its sequence.
    pub fn put(&mut self, row: &Row) {
        let next = self.tokens(row.sequence).len();
        assert_eq!(
            row.position as usize, next,
            "not the next position of its sequence"
        );
        assert!(
            self.intact(row.sequence, row.position),
            "a hole in the window"
        );
        let place = self.place(row.sequence);
        let sequences = self.bit(row.sequence);
        self.cells[place] = Some(Cell {
            token: row.token,
            position: row.position,
            sequences,
        });
    }

    /// Where the next token of a sequence goes.
    fn place(&mut self, sequence: SeqId) -> usize {
        let bit = self.bit(sequence);
        let last = (0..self.cells.len())
            .filter_map(|at| Some((self.cells[at]?, at)))
            .filter(|(cell, _)| cell.sequences & bit != 0)
            .max_by_key(|(cell, _)| cell.position);
        let next = last.map_or(0, |(_, at)| at + 1);
        if next > 0 && self.cells.get(next).is_some_and(Option::is_none) {
            return next;
        }
        let blocks = || {
            let blocks = self.cells.chunks_exact(self.block).enumerate();
            blocks.filter(|(_, cells)| cells.iter().all(Option::is_none))
        };
        let above = blocks().find(|(block, _)| block * self.block >= next);
        if let Some((block, _)) = above.or_else(|| blocks().next()) {
            return block * self.block;
        }
        self.scattered += 1;
        let free = self.cells.iter().position(Option::is_none);
        free.expect("the batch was held against the room")
    }

    pub fn remove(&mut self, sequence: SeqId, from: i32, to: i32) {
        let bit = self.bit(sequence);
        for cell in self.cells.iter_mut().flatten() {
            if in_range(cell.position, from, to) {
                cell.sequences &= !bit;
            }
        }
        for place in &mut self.cells {
            *place = place.filter(|cell| cell.sequences != 0);
        }
        if (from, to) == (0, -1) {
            self.lost[sequence as usize] = 0;
        }
    }

    /// As in llama.cpp, a shared cell moves for all who share it.
    pub fn shift(&mut self, sequence: SeqId, from: i32, to: i32, delta: i32) {
        let bit = self.bit(sequence);
        for cell in self.cells.iter_mut().flatten() {
            if cell.sequences & bit != 0 && in_range(cell.position, from, to) {
                cell.position += delta;
            }
        }
    }

    /// Whether a token at position `len` finds all it looks at.
    pub fn intact(&self, sequence: SeqId, len: i32) -> bool {
        let lost = self.lost[sequence as usize];
        self.window
            .is_none_or(|window| lost <= (len + 1 - window).max(0))
    }

    pub fn copy(&mut self, from: SeqId, to: SeqId, begin: i32, end: i32) {
        assert_eq!(self.tokens(to), [], "a copy into a sequence in use");
        self.lost[to as usize] = self.lost[from as usize];
        let (from, to) = (self.bit(from), self.bit(to));
        for cell in self.cells.iter_mut().flatten() {
            if cell.sequences & from != 0 && in_range(cell.position, begin, end) {
                cell.sequences |= to;
            }
        }
    }

    fn bit(&self, sequence: SeqId) -> u64 {
        assert!(
            (0..self.lost.len() as SeqId).contains(&sequence),
            "no sequence {sequence}"
        );
        1 << sequence
    }
}

fn in_range(position: i32, from: i32, to: i32) -> bool {
    position >= from && (to < 0 || position < to)
}
