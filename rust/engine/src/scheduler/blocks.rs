//! Room for what comes next, in blocks.
//!
//! A model that finds no free block for a sequence takes single cells, and the
//! text then rounds otherwise ([`crate::prefix`]). So kept ones give up whole
//! blocks, and those that are taken must not depend on drafts: blocks are made
//! free half a block before the text comes to them, for which any draft is
//! short enough, and a draft by itself drives nobody out. With drafts and
//! without, a sequence that begins a block then finds the same ones free.

use super::Scheduler;

impl Scheduler {
    /// Makes blocks free for the tokens of all running requests and some more,
    /// as far as that costs kept ones only.
    pub(super) fn make_blocks(&mut self) {
        let ahead = (self.limits.block - 1) / 2;
        let running = self.line.range(..self.running);
        let lens = running.map(|entry| {
            let len = entry.tokens.len() + ahead;
            (entry.running(), len.min(entry.limit))
        });
        let lens: Vec<_> = lens.collect();
        self.prefixes.make_blocks(&lens);
    }
}
