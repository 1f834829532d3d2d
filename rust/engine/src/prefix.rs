//! Which sequence holds which cells of the pool. Beside the sequences of live
//! requests there are kept ones: what finished requests had computed, for
//! whoever comes with the same beginning. Pure, as the scheduler.
//!
//! A cell of the unified cache has one position and belongs to any number of
//! sequences. Cells become shared by copying the beginning of a sequence, so
//! two sequences always share their first so many cells and no others: one
//! number for each pair says all there is to know.

mod blocks;
mod evict;
mod find;
mod shares;

pub use self::find::{Found, Live, Match, WORTHWHILE};

use self::blocks::Blocks;
use self::shares::Shares;
use crate::model::{Reuse, SeqId, Token};

/// What the model is to do with its cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Free the cells of `sequence` at positions `from..to`, or to the end.
    Remove {
        sequence: SeqId,
        from: usize,
        to: Option<usize>,
    },
    /// Let `to`, which holds nothing, share the first `len` cells of `from`.
    Copy { from: SeqId, to: SeqId, len: usize },
    /// Move the positions `from..to` of `sequence` forward by `by`.
    Shift {
        sequence: SeqId,
        from: usize,
        to: usize,
        by: usize,
    },
}

#[derive(Debug)]
enum Sequence {
    Idle,
    Live {
        /// Cells set aside, computed or not.
        cells: usize,
        /// The first so many cells never move.
        fixed: usize,
    },
    Kept {
        /// One for each cell.
        tokens: Vec<Token>,
        /// When somebody last had a use for it.
        used: u64,
    },
}

/// The pool of cells and the sequences that hold them.
#[derive(Debug)]
pub struct Prefixes {
    reuse: Reuse,
    cells: usize,
    /// Cells that nobody holds.
    free: usize,
    /// Cells that only kept sequences hold.
    kept: usize,
    /// By id.
    sequences: Vec<Sequence>,
    shares: Shares,
    blocks: Blocks,
    /// Counts uses, to tell which is the latest.
    clock: u64,
    evicted: u64,
    changes: Vec<Change>,
}

impl Prefixes {
    /// An empty pool, in which the model gives a sequence `block` cells together.
    pub fn new(sequences: usize, cells: usize, block: usize, reuse: Reuse) -> Self {
        Self {
            reuse,
            cells,
            free: cells,
            kept: 0,
            sequences: (0..sequences).map(|_| Sequence::Idle).collect(),
            shares: Shares::new(sequences),
            blocks: Blocks::new(sequences, cells, block),
            clock: 0,
            evicted: 0,
            changes: Vec::new(),
        }
    }

    /// What the model has to do since the last call, in this order, before the
    /// next decode.
    pub fn changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Cells that only kept sequences hold.
    pub fn kept(&self) -> usize {
        self.kept
    }

    /// Cells that live requests hold.
    pub fn live(&self) -> usize {
        self.cells - self.free - self.kept
    }

    /// Cells taken from kept sequences since the last call.
    pub fn evicted(&mut self) -> u64 {
        std::mem::take(&mut self.evicted)
    }

    /// Cells that nobody holds.
    pub fn free(&self) -> usize {
        self.free
    }

    /// Cells set aside for a live sequence.
    pub fn cells(&self, sequence: SeqId) -> usize {
        self.len(sequence as usize)
    }

    /// Cells that could be had, by a request that starts with `found`.
    pub fn available(&self, found: Option<Match>) -> usize {
        self.free + self.kept - found.map_or(0, |found| self.revived(found))
    }

    /// Sets `cells` aside for a request, of which `found` are there already.
    /// There must be so many to be had, and a sequence that is not live.
    pub fn start(&mut self, cells: usize, fixed: usize, found: Option<Match>) -> SeqId {
        let sequence = match found {
            None => self
                .vacate(None)
                .expect("fewer live requests than sequences"),
            Some(found) => self.share(found),
        };
        let len = found.map_or(0, |found| found.len);
        self.sequences[sequence] = Sequence::Live { cells: len, fixed };
        let grown = self.grow(sequence as SeqId, cells - len);
        assert!(grown, "the cells were counted");
        sequence as SeqId
    }

    /// Sets `count` more cells aside, at the expense of kept ones; false if
    /// that is not enough.
    pub fn grow(&mut self, sequence: SeqId, count: usize) -> bool {
        if !self.make_room(count) {
            return false;
        }
        self.free -= count;
        match &mut self.sequences[sequence as usize] {
            Sequence::Live { cells, .. } => *cells += count,
            other => unreachable!("{other:?} grows"),
        }
        true
    }

    /// The model has computed the first `len` cells of a live sequence.
    pub fn place(&mut self, sequence: SeqId, len: usize) {
        self.blocks.place(sequence as usize, len);
    }

    /// The cells of a live sequence at positions from `from` on, which were not
    /// set aside for it, hold nothing of use.
    pub fn forget(&mut self, sequence: SeqId, from: usize) {
        debug_assert_eq!(self.cells(sequence), from);
        self.changes.push(Change::Remove {
            sequence,
            from,
            to: None,
        });
    }

    /// A live request ends; of the `computed` cells that it had the first stay,
    /// which hold `tokens`, if they may be of use.
    pub fn keep(&mut self, sequence: SeqId, tokens: &[Token], computed: usize) {
        let at = sequence as usize;
        let is_cut = tokens.len() < computed;
        if tokens.len() < WORTHWHILE || (is_cut && self.reuse != Reuse::Any) {
            return self.release(sequence);
        }
        if is_cut {
            self.changes.push(Change::Remove {
                sequence,
                from: tokens.len(),
                to: None,
            });
        }
        self.free += self.len(at) - tokens.len();
        self.blocks.limit(at, tokens.len());
        self.sequences[at] = Sequence::Kept {
            tokens: tokens.to_vec(),
            used: self.now(),
        };
        self.kept += tokens.len() - self.shared_with_live(at);
        if self.reuse == Reuse::Any {
            self.merge(at);
        }
    }

    /// Frees a sequence, live or kept.
    pub fn release(&mut self, sequence: SeqId) {
        let at = sequence as usize;
        self.free += self.own(at);
        match self.sequences[at] {
            Sequence::Kept { .. } => self.kept -= self.own(at),
            // Only kept ones hold what they shared of it.
            _ => self.kept += self.shares.most(at) - self.shared_with_live(at),
        }
        self.sequences[at] = Sequence::Idle;
        self.shares.limit(at, 0);
        self.blocks.limit(at, 0);
        self.changes.push(Change::Remove {
            sequence,
            from: 0,
            to: None,
        });
    }

    /// Frees all kept sequences; false if there were none.
    pub fn clear(&mut self) -> bool {
        let kept: Vec<usize> = self.kept_sequences().map(|(at, _)| at).collect();
        for &at in &kept {
            self.evict(at);
        }
        !kept.is_empty()
    }

    /// Drops the cells of a live sequence at positions `from..to` and moves
    /// those behind them, up to `end`, to the front. Whoever is kept and has a
    /// share in them goes; live requests have none.
    pub fn shift(&mut self, sequence: SeqId, from: usize, to: usize, end: usize) {
        let at = sequence as usize;
        for other in 0..self.sequences.len() {
            if self.shares.of(at)[other] > from {
                debug_assert!(matches!(self.sequences[other], Sequence::Kept { .. }));
                self.evict(other);
            }
        }
        match &mut self.sequences[at] {
            Sequence::Live { cells, .. } => *cells -= to - from,
            other => unreachable!("{other:?} is shifted"),
        }
        self.free += to - from;
        self.blocks.shift(at, from, to);
        self.changes.extend([
            Change::Remove {
                sequence,
                from,
                to: Some(to),
            },
            Change::Shift {
                sequence,
                from: to,
                to: end,
                by: to - from,
            },
        ]);
    }

    /// The sequence of a request that starts with `found`.
    fn share(&mut self, found: Match) -> usize {
        let source = found.sequence as usize;
        let len = found.len;
        self.kept -= self.revived(found);
        if let Sequence::Kept { used, .. } = &mut self.sequences[source] {
            self.clock += 1;
            *used = self.clock;
        }
        let other = (!found.whole).then(|| self.vacate(Some(source))).flatten();
        let Some(at) = other else {
            // Nothing is lost, or there is no other sequence.
            if !found.whole {
                self.truncate(source, len);
            }
            return source;
        };
        self.shares.copy(source, at, len);
        self.blocks.copy(source, at, len);
        self.changes.push(Change::Copy {
            from: found.sequence,
            to: at as SeqId,
            len,
        });
        at
    }

    /// Drops kept sequences that a new one contains, or the new one if it is
    /// contained in another.
    fn merge(&mut self, new: usize) {
        let Sequence::Kept { tokens, .. } = &self.sequences[new] else {
            return;
        };
        let kept = || self.kept_sequences().filter(|&(at, _)| at != new);
        let inside: Vec<usize> = kept()
            .filter(|(_, other)| tokens.starts_with(other))
            .map(|(at, _)| at)
            .collect();
        let around = kept()
            .find(|(_, other)| other.starts_with(tokens))
            .map(|(at, _)| at);
        for at in inside.iter().copied() {
            self.release(at as SeqId);
        }
        if let Some(at) = around.filter(|at| !inside.contains(at)) {
            self.release(new as SeqId);
            let now = self.now();
            if let Sequence::Kept { used, .. } = &mut self.sequences[at] {
                *used = now;
            }
        }
    }

    fn kept_sequences(&self) -> impl Iterator<Item = (usize, &Vec<Token>)> {
        let all = self.sequences.iter().enumerate();
        all.filter_map(|(at, sequence)| match sequence {
            Sequence::Kept { tokens, .. } => Some((at, tokens)),
            _ => None,
        })
    }

    fn len(&self, at: usize) -> usize {
        match &self.sequences[at] {
            Sequence::Idle => 0,
            Sequence::Live { cells, .. } => *cells,
            Sequence::Kept { tokens, .. } => tokens.len(),
        }
    }

    /// Cells that no other sequence holds.
    fn own(&self, at: usize) -> usize {
        self.len(at) - self.shares.most(at)
    }

    /// Cells that only kept sequences hold, until a request starts with them.
    fn revived(&self, found: Match) -> usize {
        let at = found.sequence as usize;
        match self.sequences[at] {
            Sequence::Kept { .. } => found.len.saturating_sub(self.shared_with_live(at)),
            _ => 0,
        }
    }

    fn shared_with_live(&self, at: usize) -> usize {
        let live = self.sequences.iter().zip(self.shares.of(at));
        live.filter(|(sequence, _)| matches!(sequence, Sequence::Live { .. }))
            .map(|(_, &shared)| shared)
            .max()
            .unwrap_or(0)
    }

    fn now(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}
