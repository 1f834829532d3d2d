//! One request, as the scheduler sees it.

use crate::lookup::Trust;
use crate::model::{SeqId, Token};
use crate::prefix::Prefixes;
use crate::request::RequestId;

/// Cells kept free for each running request when another one is let in. With
/// none, a pool that is nearly full would pause and resume at every step, each
/// time computing a whole prompt again.
const HEADROOM: usize = 32;

/// A request in the line.
#[derive(Debug)]
pub(super) struct Entry {
    pub id: RequestId,
    /// Tokens known: the prompt and the reply so far.
    pub tokens: Vec<Token>,
    /// Tokens it can come to have at most.
    pub limit: usize,
    /// The first so many stay where they are when its context is shifted.
    pub fixed: usize,
    /// Tokens that are in cells.
    pub computed: usize,
    /// Its context was shifted: what is behind the fixed part is no longer
    /// what computing those tokens would give.
    pub shifted: bool,
    /// Set while it runs.
    pub sequence: Option<SeqId>,
    /// Whether it ever ran; if it waits, it is paused.
    pub started: bool,
    /// Whether drafts pay.
    pub trust: Trust,
}

impl Entry {
    pub fn pending(&self) -> usize {
        self.tokens.len() - self.computed
    }

    pub fn headroom(&self) -> usize {
        HEADROOM.min(self.limit - self.tokens.len())
    }

    pub fn running(&self) -> SeqId {
        self.sequence.expect("a running request has a sequence")
    }

    /// Runs no more; its cells are kept as far as they are what computing its
    /// tokens would give.
    pub fn leave(&mut self, prefixes: &mut Prefixes) {
        if let Some(sequence) = self.sequence.take() {
            let exact = if self.shifted {
                self.fixed
            } else {
                self.computed
            };
            prefixes.keep(sequence, &self.tokens[..exact], self.computed);
            self.computed = 0;
        }
    }

    /// Runs no more, and nothing of it is kept.
    pub fn vanish(&mut self, prefixes: &mut Prefixes) {
        if let Some(sequence) = self.sequence.take() {
            prefixes.release(sequence);
            self.computed = 0;
        }
    }
}
