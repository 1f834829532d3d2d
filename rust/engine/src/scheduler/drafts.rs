//! Drafts in the plan: who gets one, and what becomes of it.

use super::{Piece, Scheduler};
use crate::lookup::{Draft, Terms};
use crate::model::Token;
use crate::request::RequestId;

impl Scheduler {
    /// From now on there are drafts on these terms, if there are any.
    pub fn draft_on(&mut self, terms: Terms) {
        if self.limits.drafts != Terms::NONE {
            self.limits.drafts = terms;
        }
    }

    /// This token was sampled and is the next one of the draft, whose cell
    /// becomes the request's.
    pub fn confirm(&mut self, id: RequestId, token: Token) {
        self.extend(id, token);
        let entry = self.running_entry(id);
        entry.computed += 1;
        let (sequence, computed) = (entry.running(), entry.computed);
        let grown = self.prefixes.grow(sequence, 1);
        self.prefixes.place(sequence, computed);
        assert!(grown, "the cells of drafts were free");
        // As the plan for the next token does, which is there already.
        self.make_blocks();
    }

    /// Of the draft of `piece` the first `right` tokens were confirmed, and
    /// the others are wrong: their cells are freed.
    pub fn judge(&mut self, piece: &Piece, right: usize) {
        let entry = self.running_entry(piece.id);
        entry.trust.learn(piece.draft.len, right);
        if right < piece.draft.len {
            let (sequence, computed) = (entry.running(), entry.computed);
            self.prefixes.forget(sequence, computed);
        }
    }

    /// Adds drafts to a step of few streams and nothing else, as far as there are
    /// free cells.
    pub(super) fn draft(&mut self, pieces: &mut [Piece]) {
        let terms = self.limits.drafts;
        let streams_only = pieces.iter().all(|piece| piece.len == 1 && piece.samples);
        if !streams_only || pieces.len() > terms.streams {
            return;
        }
        let mut room = terms
            .longest()
            .min(self.ceiling - pieces.len())
            .min(self.prefixes.free());
        for (sharing, piece) in (1..=pieces.len()).rev().zip(pieces) {
            let entry = self.running_entry(piece.id);
            // The token after the draft has its place as well.
            let most = entry.limit.saturating_sub(entry.tokens.len() + 1);
            if entry.trust.holds() {
                piece.draft = Draft::find(&entry.tokens, &terms, most.min(room / sharing));
                room -= piece.draft.len;
            }
        }
    }
}
