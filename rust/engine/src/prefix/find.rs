//! What of a prompt is in cells already.

use super::{Prefixes, Sequence};
use crate::model::{Reuse, SeqId, Token};

/// Tokens to reuse at least. Fewer are computed faster than they are looked
/// after, and waiting for them would cost a step.
pub const WORTHWHILE: usize = 16;

/// A live request in whose cells another one may find its beginning.
#[derive(Debug, Clone, Copy)]
pub struct Live<'a> {
    pub sequence: SeqId,
    /// Tokens known.
    pub tokens: &'a [Token],
    /// Of these, the ones that are in cells.
    pub computed: usize,
}

/// Cells that a request can start with instead of computing them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Match {
    pub len: usize,
    /// It is all of a kept sequence, which then is not copied but taken over.
    pub whole: bool,
    pub sequence: SeqId,
}

/// What a request finds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub best: Option<Match>,
    /// Cells that will be there when a live request has computed its prompt.
    pub promised: usize,
}

impl Prefixes {
    /// Looks for the longest beginning of `tokens` that is in cells. The last
    /// token is always left to compute: its logits are wanted. Of the request
    /// only the first `fixed` cells never move. `intact` says whether a
    /// sequence can go on after its first so many cells.
    pub fn find<'a>(
        &self,
        tokens: &[Token],
        fixed: usize,
        live: impl Iterator<Item = Live<'a>>,
        intact: &dyn Fn(SeqId, usize) -> bool,
    ) -> Found {
        let tokens = &tokens[..tokens.len() - 1];
        let mut found = Found::default();
        let mut consider = |sequence: SeqId, len: usize, whole: bool| {
            let better = found
                .best
                .is_none_or(|best| (len, whole) > (best.len, best.whole));
            if len >= WORTHWHILE && better && (whole || intact(sequence, len)) {
                found.best = Some(Match {
                    len,
                    whole,
                    sequence,
                });
            }
        };
        for (sequence, kept) in self.kept_sequences() {
            let len = common(tokens, kept).min(self.sharable(sequence, fixed));
            let whole = len == kept.len();
            if whole || self.reuse != Reuse::Whole {
                consider(sequence as SeqId, len, whole);
            }
        }
        for other in live {
            if self.reuse == Reuse::Whole {
                break;
            }
            let sharable = self.sharable(other.sequence as usize, fixed);
            let len = common(tokens, other.tokens).min(sharable);
            consider(other.sequence, len.min(other.computed), false);
            if other.computed < len {
                found.promised = found.promised.max(len);
            }
        }
        found
    }

    /// How many of its first cells a sequence can share with a request of
    /// which `fixed` never move: cells of two live requests must not move.
    fn sharable(&self, source: usize, fixed: usize) -> usize {
        let live = self.sequences.iter().enumerate();
        live.filter_map(|(at, sequence)| match sequence {
            Sequence::Live { fixed: other, .. } => {
                let bound = fixed.min(*other);
                (at == source || self.shares.of(source)[at] > bound).then_some(bound)
            }
            _ => None,
        })
        .min()
        .unwrap_or(usize::MAX)
    }
}

/// Tokens that both begin with.
fn common(a: &[Token], b: &[Token]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
