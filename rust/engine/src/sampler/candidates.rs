//! The set of tokens that filters narrow down.

use std::cmp::Ordering;

use super::logits::Logits;
use crate::model::Token;

/// Candidates put in order at first, and how many times as many next.
const FIRST_SORTED: usize = 64;
const MORE_SORTED: usize = 8;

/// Groups of logits, for each token to select, from whose maxima the selection
/// takes its threshold. With four, it meets about one and a half times as many
/// tokens as it selects.
const GROUPS: usize = 4;

/// A token that may still be picked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The token.
    pub id: Token,
    /// Its logit; never NaN.
    pub logit: f32,
    /// Its probability, as of the last [`Candidates::softmax`].
    pub p: f32,
}

impl Candidate {
    /// A candidate whose probability is not known yet. NaN becomes minus
    /// infinity.
    pub fn new(id: Token, logit: f32) -> Self {
        // Adding 0 turns -0 into 0, so that they tie in `Self::order`.
        let logit = if logit.is_nan() {
            f32::NEG_INFINITY
        } else {
            logit + 0.0
        };
        Self { id, logit, p: 0.0 }
    }

    /// The order in which filters see candidates: by falling logit, ties by
    /// rising id.
    pub fn order(&self, other: &Self) -> Ordering {
        other
            .logit
            .total_cmp(&self.logit)
            .then(self.id.cmp(&other.id))
    }
}

/// What filters work on: the tokens left, put in order only as far as someone
/// looks.
#[derive(Debug, Default)]
pub struct Candidates {
    items: Vec<Candidate>,
    /// Leading items that are in [`Candidate::order`] and before all others.
    sorted: usize,
    /// The sum of `exp(logit - max)` over the set, where the items are only
    /// the first of it: the others come after all of these, and nobody will
    /// look at them.
    partition: Option<f64>,
    /// Maxima of blocks of logits, and of groups of blocks; kept to be used
    /// again.
    maxima: Vec<f32>,
    group_maxima: Vec<f32>,
}

impl Candidates {
    /// The candidates in an order of no meaning, unless [`Self::sort`] or the
    /// last filter says otherwise.
    pub fn items(&self) -> &[Candidate] {
        &self.items
    }

    /// Number of candidates.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is no candidate, as when no logit is above minus infinity.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Starts again with all tokens.
    pub fn gather_all(&mut self, logits: &Logits) {
        self.restart();
        logits.for_each(|id, logit| self.items.push(Candidate::new(id, logit)));
    }

    /// Starts again with the tokens whose logit is above `threshold`.
    pub fn gather_above(&mut self, logits: &Logits, threshold: f32) {
        self.restart();
        logits.scan_above(threshold, |id, logit| {
            self.items.push(Candidate::new(id, logit));
            threshold
        });
    }

    /// Starts again with the first `k` tokens in [`Candidate::order`], sorted.
    /// Tokens of minus infinity count, if there are not enough others.
    pub fn gather_top(&mut self, logits: &Logits, k: usize) {
        if k >= logits.len() {
            self.gather_all(logits);
        } else {
            self.restart();
            self.select_top(logits, k.max(1));
        }
        self.sort();
    }

    /// Starts again with the tokens of a logit of `least` or more, which is at
    /// most the highest, after a temperature. Those that come after the
    /// probability `mass` may be missing, but count in [`Self::softmax`].
    pub fn gather_mass(&mut self, logits: &Logits, temperature: f32, least: f32, mass: f64) {
        if mass >= 1.0 {
            self.restart();
            logits.for_each(|id, logit| {
                let candidate = Candidate::new(id, logit);
                if candidate.logit >= least {
                    self.items.push(candidate);
                }
            });
        } else {
            let max = logits.max();
            let partition = logits.partition(max, temperature, least);
            // All tokens less probable than this have less than the rest of
            // the mass together; half of it leaves room for rounding.
            let improbable = (1.0 - mass) / (2.0 * logits.len() as f64);
            let below_max = f64::from(temperature) * (improbable * partition).ln();
            let reached = (f64::from(max) + below_max) as f32;
            self.gather_above(logits, least.max(reached).min(max).next_down());
            self.partition = Some(partition);
        }
        self.divide(temperature);
    }

    /// Divides the logits, which leaves the probabilities to be computed.
    pub fn divide(&mut self, temperature: f32) {
        for item in &mut self.items {
            item.logit /= temperature;
        }
    }

    /// Computes the probabilities of the set.
    pub fn softmax(&mut self) {
        let weights = self.weigh();
        let sum = self.partition.unwrap_or(weights) as f32;
        for item in &mut self.items {
            item.p /= sum;
        }
    }

    /// The candidate of rank `rank`, from 0, in [`Candidate::order`].
    pub fn nth(&mut self, rank: usize) -> Candidate {
        if rank >= self.sorted {
            self.sorted = sort_next(&mut self.items, self.sorted, rank + 1, Candidate::order);
        }
        self.items[rank]
    }

    /// Puts all candidates in [`Candidate::order`].
    pub fn sort(&mut self) {
        if self.sorted < self.items.len() {
            self.items[self.sorted..].sort_unstable_by(Candidate::order);
            self.sorted = self.items.len();
        }
    }

    /// Keeps the candidates up to and including the first, in
    /// [`Candidate::order`], for which `is_last` holds; all if there is none.
    pub fn keep_through(&mut self, mut is_last: impl FnMut(&Candidate) -> bool) {
        let kept = (0..self.len()).find(|&rank| is_last(&self.nth(rank)));
        self.keep_first(kept.map_or(self.len(), |rank| rank + 1));
    }

    /// Keeps the first `n` in [`Candidate::order`], and at least one.
    pub fn keep_first(&mut self, n: usize) {
        if self.is_empty() {
            return;
        }
        let n = n.clamp(1, self.len());
        self.nth(n - 1);
        self.items.truncate(n);
        self.sorted = self.sorted.min(n);
        self.partition = None;
    }

    /// Keeps those of a logit of `least` or more, which must be one at least.
    pub fn keep_from_logit(&mut self, least: f32) {
        self.items.retain(|item| item.logit >= least);
        self.sorted = self.sorted.min(self.items.len());
        self.partition = None;
    }

    /// Replaces the set by some of its candidates, in an order of their own.
    pub fn keep_these(&mut self, kept: impl IntoIterator<Item = Candidate>) {
        self.restart();
        self.items.extend(kept);
    }

    fn restart(&mut self) {
        self.items.clear();
        self.sorted = 0;
        self.partition = None;
    }

    /// Sets `p` to `exp(logit - max)` and returns the sum.
    fn weigh(&mut self) -> f64 {
        let logits = self.items.iter().map(|item| item.logit);
        let max = logits.fold(f32::NEG_INFINITY, f32::max);
        let mut sum = 0.0;
        for item in &mut self.items {
            // The difference of two infinities would be NaN.
            item.p = if item.logit == max {
                1.0
            } else {
                (item.logit - max).exp()
            };
            sum += f64::from(item.p);
        }
        sum
    }

    fn select_top(&mut self, logits: &Logits, k: usize) {
        // Room to collect in before the worst are thrown out again.
        let full = k + k.max(FIRST_SORTED);
        let mut maxima = std::mem::take(&mut self.maxima);
        logits.block_maxima(&mut maxima);
        // The k-th itself passes.
        let mut threshold = self.kth_maximum(&maxima, k).next_down();
        logits.scan_blocks_above(&maxima, threshold, |id, logit| {
            self.items.push(Candidate::new(id, logit));
            if self.items.len() == full {
                self.keep_best(k);
                // Later tokens have higher ids, so they lose a tie with it.
                threshold = self.items[k - 1].logit;
            }
            threshold
        });
        self.maxima = maxima;
        if self.items.len() > k {
            self.keep_best(k);
        } else if self.items.len() < k {
            self.fill_up(logits, k);
        }
    }

    /// The `k`-th highest maximum of groups of blocks: at least `k` logits are
    /// as high. Minus infinity if there are fewer groups.
    fn kth_maximum(&mut self, maxima: &[f32], k: usize) -> f32 {
        let blocks = (maxima.len() / k.saturating_mul(GROUPS)).max(1);
        let groups = maxima.chunks(blocks);
        if groups.len() < k {
            return f32::NEG_INFINITY;
        }
        self.group_maxima.clear();
        self.group_maxima
            .extend(groups.map(|group| group.iter().copied().fold(f32::NEG_INFINITY, f32::max)));
        let falling = |a: &f32, b: &f32| b.total_cmp(a);
        *self.group_maxima.select_nth_unstable_by(k - 1, falling).1
    }

    fn keep_best(&mut self, k: usize) {
        self.items.select_nth_unstable_by(k - 1, Candidate::order);
        self.items.truncate(k);
    }

    /// Adds the first tokens of minus infinity until there are `k` candidates.
    fn fill_up(&mut self, logits: &Logits, k: usize) {
        logits.for_each(|id, logit| {
            let candidate = Candidate::new(id, logit);
            if self.items.len() < k && candidate.logit == f32::NEG_INFINITY {
                self.items.push(candidate);
            }
        });
    }
}

/// Extends the sorted start of `items` from `sorted` to at least `wanted`
/// items, several times as many if there are, and returns how many they are now.
pub(super) fn sort_next<T>(
    items: &mut [T],
    sorted: usize,
    wanted: usize,
    order: impl Fn(&T, &T) -> Ordering + Copy,
) -> usize {
    let end = wanted
        .max(MORE_SORTED * sorted)
        .max(FIRST_SORTED)
        .min(items.len());
    let rest = &mut items[sorted..];
    if sorted + rest.len() > end {
        rest.select_nth_unstable_by(end - sorted, order);
    }
    rest[..end - sorted].sort_unstable_by(order);
    end
}
