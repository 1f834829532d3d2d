//! What the scheduler decides.

use std::ops::Range;

use crate::lookup::Draft;
use crate::model::SeqId;
use crate::request::RequestId;

/// The next step.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Requests that had to give their cells back.
    pub paused: Vec<RequestId>,
    /// What to decode: at most one piece a request, in order of arrival.
    pub pieces: Vec<Piece>,
}

impl Plan {
    /// Rows of the batch.
    pub fn rows(&self) -> usize {
        self.pieces.iter().map(Piece::rows).sum()
    }

    /// Those of them that are drafts.
    pub fn drafted(&self) -> usize {
        self.pieces.iter().map(|piece| piece.draft.len).sum()
    }

    /// The pieces in the order of their rows in the batch: prompts first.
    /// Attention takes the rows of a batch in tiles, and so it cuts a prompt as
    /// it would without the streams beside it, and rounds alike.
    pub fn batch(&self) -> impl Iterator<Item = &Piece> {
        let streams = self.pieces.iter().filter(|piece| !piece.is_prompt());
        self.prompts().chain(streams)
    }

    /// The pieces after which tokens are to be sampled, in order of arrival,
    /// each with the rows of the batch whose logits they come from: that of the
    /// last known token and those of the draft.
    pub fn samples(&self) -> impl Iterator<Item = (&Piece, Range<usize>)> {
        let rows = self.prompts().map(Piece::rows).sum();
        let ends = self
            .pieces
            .iter()
            .scan((0, rows), |(prompt, stream), piece| {
                let end = if piece.is_prompt() { prompt } else { stream };
                *end += piece.rows();
                Some((piece, *end))
            });
        ends.filter(|(piece, _)| piece.samples)
            .map(|(piece, end)| (piece, end - piece.draft.len - 1..end))
    }

    fn prompts(&self) -> impl Iterator<Item = &Piece> {
        self.pieces.iter().filter(|piece| piece.is_prompt())
    }
}

/// Tokens of one request to compute in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Whose tokens.
    pub id: RequestId,
    /// Where they go.
    pub sequence: SeqId,
    /// Index of the first token, which is also its position.
    pub start: usize,
    /// Tokens; at least 1.
    pub len: usize,
    /// Whether the piece ends with the last known token, so that the next one
    /// is to be sampled.
    pub samples: bool,
    /// Tokens that may come next, to be computed behind it.
    pub draft: Draft,
}

impl Piece {
    fn is_prompt(&self) -> bool {
        self.len > 1
    }

    /// Rows that it takes.
    pub fn rows(&self) -> usize {
        self.len + self.draft.len
    }
}

/// What to do about a decode that found no room, although by the count of
/// cells there was enough.
#[derive(Debug, PartialEq, Eq)]
pub enum Relief {
    /// What was kept is gone: plan again.
    Evicted,
    /// This request was paused: plan again.
    Paused(RequestId),
    /// The next plan is smaller.
    Smaller,
    /// A single row of the only running request does not fit.
    Hopeless(RequestId),
}
