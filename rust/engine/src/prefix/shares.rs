//! Which cells are of two sequences at once.

/// By two sequences: how many cells, from the first on, are of both.
#[derive(Debug)]
pub(super) struct Shares(Vec<Vec<usize>>);

impl Shares {
    pub fn new(sequences: usize) -> Self {
        Self(vec![vec![0; sequences]; sequences])
    }

    /// Cells that `one` shares with each of the sequences.
    pub fn of(&self, one: usize) -> &[usize] {
        &self.0[one]
    }

    /// Cells that `one` shares with any other.
    pub fn most(&self, one: usize) -> usize {
        self.0[one].iter().copied().max().unwrap_or(0)
    }

    /// `to`, which had no cells, has the first `len` of `from`.
    pub fn copy(&mut self, from: usize, to: usize, len: usize) {
        for other in 0..self.0.len() {
            if other != to {
                let common = if other == from {
                    len
                } else {
                    self.0[from][other].min(len)
                };
                self.set(to, other, common);
            }
        }
    }

    /// `one` has only its first `len` cells left.
    pub fn limit(&mut self, one: usize, len: usize) {
        for other in 0..self.0.len() {
            self.set(one, other, self.0[one][other].min(len));
        }
    }

    fn set(&mut self, one: usize, other: usize, common: usize) {
        self.0[one][other] = common;
        self.0[other][one] = common;
    }
}
