//! Which drafts a model takes, and the proof that their rows are those of
//! single tokens.
//!
//! A reply is the same with drafts as without if rows of one sequence have the
//! same logits, to the bit, whether they are computed together or one by one.
//! Our kernels see to that, as long as all products and attention are theirs,
//! which each graph tells. llama.cpp's products do or do not, by the type of
//! each weight, the CPU and the number of rows: those for several rows may add
//! in another order, which shows in every row. So the first draft of each length
//! is computed twice, together and row by row, and only if all logits are equal
//! are others of that length computed together. If they are not, there are no
//! more drafts as long as that.
//!
//! One pair of decodes cannot show what differs seldom or elsewhere, so this is
//! for models only where nothing is known to:
//! - Weights lie as in the file. For those that llama.cpp rearranges, it rounds
//!   the activations of several rows with another function, whose results are
//!   others in about one row of two.
//! - Attention is one operation and shared among threads by heads. It is then
//!   computed for each row alone, whatever the cells
//!   (`rust/engine/llama/llama.cmake`).

use llm_kernels::ggml::Left;

use super::LlamaConfig;
use super::cache::FlashAttention;
use super::weights::Weights;
use crate::lookup::Terms;
use crate::model::{Kernels, Row};

/// The drafts that a model takes, as far as one can tell before there were any.
pub(super) fn terms(weights: &Weights, config: &LlamaConfig) -> Terms {
    // A state has no last tokens that could be taken out of it. A window has:
    // a decode drops only what its first row does not see. Where attention is
    // not one operation its products may round several rows in other ways than
    // one, differently for each number of cells.
    if weights.is_stateful() || config.flash_attention == FlashAttention::Off {
        Terms::NONE
    } else if weights.is_ours() {
        Terms::CHEAP
    } else if config.gpu_layers == 0
        && !matches!(weights.kernels(), Kernels::On(_))
        && are_provable(weights, config)
    {
        Terms::DEAR
    } else {
        Terms::NONE
    }
}

/// Whether nothing is known that would tell rows of llama.cpp's from single ones
/// only sometimes.
pub(super) fn are_provable(weights: &Weights, config: &LlamaConfig) -> bool {
    let heads = weights.heads();
    weights.are_plain() && heads.is_some_and(|heads| heads >= config.threads())
}

/// For which drafts it was shown that their rows are those of single tokens.
#[derive(Debug)]
pub(super) struct Proofs {
    terms: Terms,
    /// Whether it has to be shown: not all is computed by our kernels.
    needed: bool,
    /// Whether it can be.
    possible: bool,
    /// Numbers of rows for which it was.
    proven: Vec<usize>,
}

impl Proofs {
    pub(super) fn new(terms: Terms, possible: bool) -> Self {
        Self {
            terms,
            needed: terms != Terms::CHEAP,
            possible,
            proven: Vec::new(),
        }
    }

    /// The drafts that there are by now.
    pub(super) fn terms(&self) -> Terms {
        self.terms
    }

    /// llama.cpp's part in a decode. Its products may round rows of several
    /// streams in other ways than those of one.
    pub(super) fn doubt(&mut self, left: Left) {
        if left == Left::Nothing || (self.needed && left == Left::Weights) {
            return;
        }
        self.needed = true;
        self.terms.streams = self.terms.streams.min(1);
        if left == Left::Scores || !self.possible {
            self.terms = Terms::NONE;
        }
    }

    /// Whether these are rows of a draft of which nothing is known yet. Such
    /// are computed beside no others, and only drafts ask for all logits.
    pub(super) fn are_missing(&self, rows: &[Row]) -> bool {
        self.needed
            && rows.len() > 1
            && !self.proven.contains(&rows.len())
            && rows.iter().all(|row| row.logits)
            && rows.iter().all(|row| row.sequence == rows[0].sequence)
    }

    /// So many rows had these logits together and alone.
    pub(super) fn note(&mut self, together: &[Vec<f32>], alone: &[Vec<f32>]) {
        let rows = alone.len();
        // Numbers that are none are equal to nothing, and zeros have signs.
        let bits = |logits: &[Vec<f32>]| -> Vec<u32> {
            logits
                .iter()
                .flatten()
                .map(|logit| logit.to_bits())
                .collect()
        };
        if bits(together) == bits(alone) {
            self.proven.push(rows);
        } else {
            self.terms.shorten(rows - 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(position: i32, sequence: i32, logits: bool) -> Row {
        Row {
            token: 1,
            position,
            sequence,
            logits,
        }
    }

    #[test]
    fn drafts_of_each_length_are_to_be_proven_once() {
        let mut proofs = Proofs::new(Terms::DEAR, true);
        let draft: Vec<Row> = (5..9).map(|position| row(position, 0, true)).collect();
        assert!(proofs.are_missing(&draft));
        proofs.note(&vec![vec![1.0, f32::NAN]; 4], &vec![vec![1.0, f32::NAN]; 4]);
        assert!(!proofs.are_missing(&draft));
        assert!(proofs.are_missing(&draft[..3]));
        assert_eq!(proofs.terms().longest(), 31);
    }

    #[test]
    fn none_are_as_long_as_those_that_failed() {
        let mut proofs = Proofs::new(Terms::DEAR, true);
        let mut alone = vec![vec![0.0, 1.0]; 32];
        proofs.note(&alone.clone(), &alone);
        let together = alone.clone();
        alone[31][0] = -0.0;
        proofs.note(&together, &alone);
        assert_eq!(proofs.terms().longest(), 15);
    }

    #[test]
    fn prompts_streams_and_proven_drafts_are_not_drafts_to_prove() {
        let proofs = Proofs::new(Terms::DEAR, true);
        assert!(!proofs.are_missing(&[row(0, 0, true)]));
        assert!(!proofs.are_missing(&[row(0, 0, false), row(1, 0, true)]));
        assert!(!proofs.are_missing(&[row(0, 0, true), row(0, 1, true)]));
        let cheap: Vec<Row> = (0..8).map(|position| row(position, 0, true)).collect();
        assert!(!Proofs::new(Terms::CHEAP, true).are_missing(&cheap));
    }

    #[test]
    fn what_is_not_all_ours_is_to_be_proven_for_one_stream() {
        let rows: Vec<Row> = (5..8).map(|position| row(position, 0, true)).collect();
        let mut proofs = Proofs::new(Terms::CHEAP, true);
        proofs.doubt(Left::Nothing);
        assert_eq!(proofs.terms(), Terms::CHEAP);
        proofs.doubt(Left::Weights);
        assert_eq!((proofs.terms().longest(), proofs.terms().streams), (7, 1));
        assert!(proofs.are_missing(&rows));
        proofs.note(&vec![vec![1.0]; 3], &vec![vec![2.0]; 3]);
        assert_eq!(proofs.terms().longest(), 1);

        for (possible, left) in [(false, Left::Weights), (true, Left::Scores)] {
            for terms in [Terms::CHEAP, Terms::DEAR] {
                let mut proofs = Proofs::new(terms, possible);
                proofs.doubt(left);
                let expected = if terms == Terms::DEAR && left == Left::Weights {
                    terms
                } else {
                    Terms::NONE
                };
                assert_eq!(proofs.terms(), expected);
            }
        }
    }
}
