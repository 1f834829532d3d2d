//! Who has to go when the pool is full: the least recently used, and of it no
//! more than is needed.

use super::{Change, Prefixes, Sequence};
use crate::model::{Reuse, SeqId};

impl Prefixes {
    /// Takes cells from kept sequences until `count` are free; false if that is
    /// not enough.
    pub(super) fn make_room(&mut self, count: usize) -> bool {
        while self.free < count {
            let Some(at) = self.oldest(|_| true) else {
                return false;
            };
            let missing = count - self.free;
            if self.reuse == Reuse::Any && self.own(at) > missing {
                self.evicted += missing as u64;
                self.truncate(at, self.len(at) - missing);
            } else {
                self.evict(at);
            }
        }
        true
    }

    /// Takes blocks from kept sequences until so many are free as live ones take
    /// to have as many cells as `lens` says, or until only live ones have any.
    pub fn make_blocks(&mut self, lens: &[(SeqId, usize)]) {
        loop {
            let missing = lens
                .iter()
                .map(|&(sequence, len)| self.blocks.missing(sequence as usize, len));
            if missing.sum::<usize>() <= self.blocks.free() {
                break;
            }
            let live = lens.iter().map(|&(sequence, _)| sequence as usize);
            if self.blocks.are_all_of(live) {
                break;
            }
            // A kept one whose last block others share as well gives nothing.
            let last = |at: usize| self.blocks.last(at);
            let at = self.oldest(|at| last(at).is_some());
            match (at, at.and_then(last)) {
                (Some(at), Some(len)) if len > 0 && self.reuse == Reuse::Any => {
                    self.evicted += (self.len(at) - len) as u64;
                    self.truncate(at, len);
                }
                (Some(at), _) => self.evict(at),
                (None, _) => match self.oldest(|_| true) {
                    Some(at) => self.evict(at),
                    None => break,
                },
            }
        }
    }

    /// An idle sequence, or that of the least recently used kept one.
    pub(super) fn vacate(&mut self, except: Option<usize>) -> Option<usize> {
        let idle = |sequence: &Sequence| matches!(sequence, Sequence::Idle);
        if let Some(at) = self.sequences.iter().position(idle) {
            return Some(at);
        }
        let at = self.oldest(|at| Some(at) != except)?;
        self.evict(at);
        Some(at)
    }

    pub(super) fn evict(&mut self, at: usize) {
        self.evicted += self.own(at) as u64;
        self.release(at as SeqId);
    }

    /// Cuts the tail of a kept sequence off.
    pub(super) fn truncate(&mut self, at: usize, len: usize) {
        let freed = self.len(at) - len.max(self.shares.most(at));
        self.free += freed;
        self.kept -= freed;
        self.shares.limit(at, len);
        self.blocks.limit(at, len);
        if let Sequence::Kept { tokens, .. } = &mut self.sequences[at] {
            tokens.truncate(len);
        }
        self.changes.push(Change::Remove {
            sequence: at as SeqId,
            from: len,
            to: None,
        });
    }

    /// The least recently used kept sequence of those that will do.
    fn oldest(&self, will_do: impl Fn(usize) -> bool) -> Option<usize> {
        let kept = self.sequences.iter().enumerate();
        kept.filter_map(|(at, sequence)| match sequence {
            Sequence::Kept { used, .. } => Some((used, at)),
            _ => None,
        })
        .filter(|&(_, at)| will_do(at))
        .min()
        .map(|(_, at)| at)
    }
}
