//! Cells as a model has them: each with a name, a position, the tokens that it
//! was computed after, and any number of sequences.

use std::collections::{BTreeMap, BTreeSet};

use llm_engine::model::{SeqId, Token};
use llm_engine::prefix::Change;

#[derive(Debug, Default)]
pub struct Model {
    /// The names of their cells, in the order of the positions.
    sequences: BTreeMap<SeqId, Vec<usize>>,
    /// By name; they are never used twice.
    cells: Vec<Cell>,
}

#[derive(Debug)]
struct Cell {
    position: usize,
    /// All tokens up to its own.
    tokens: Vec<Token>,
}

impl Model {
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Remove { sequence, from, to } => {
                let cells = self.sequences.entry(sequence).or_default();
                let to = to.unwrap_or(cells.len());
                assert!(from <= to && to <= cells.len(), "{change:?}");
                cells.drain(from..to);
            }
            Change::Copy { from, to, len } => {
                let cells = self.sequences[&from][..len].to_vec();
                let old = self.sequences.insert(to, cells);
                assert!(old.is_none_or(|old| old.is_empty()), "{change:?}");
            }
            Change::Shift {
                sequence,
                from,
                to,
                by,
            } => {
                // The gap has been removed.
                for &name in &self.sequences[&sequence][from - by..to - by] {
                    self.cells[name].position -= by;
                }
            }
        }
    }

    /// Computes what is missing of `tokens`.
    pub fn compute(&mut self, sequence: SeqId, tokens: &[Token]) {
        let cells = self.sequences.entry(sequence).or_default();
        while cells.len() < tokens.len() {
            cells.push(self.cells.len());
            self.cells.push(Cell {
                position: cells.len() - 1,
                tokens: tokens[..cells.len()].to_vec(),
            });
        }
    }

    /// The sequence holds these tokens; if `exact`, in cells that were
    /// computed after the same tokens.
    pub fn check(&self, sequence: SeqId, tokens: &[Token], exact: bool) {
        let names = self.sequences.get(&sequence).map_or(&[][..], Vec::as_slice);
        assert_eq!(names.len(), tokens.len());
        for (at, &name) in names.iter().enumerate() {
            let cell = &self.cells[name];
            assert_eq!(cell.position, at);
            assert_eq!(cell.tokens.last(), Some(&tokens[at]));
            assert!(!exact || cell.tokens == tokens[..=at]);
        }
    }

    /// Cells that `live` sequences hold, and those that only others do.
    pub fn count(&self, live: &[SeqId]) -> (usize, usize) {
        let names = |is_live: bool| -> BTreeSet<usize> {
            let sequences = self.sequences.iter();
            sequences
                .filter(|(sequence, _)| live.contains(sequence) == is_live)
                .flat_map(|(_, names)| names.iter().copied())
                .collect()
        };
        let (live, kept) = (names(true), names(false));
        (live.len(), kept.difference(&live).count())
    }
}
