//! What the engine thread measures of its own work, for those who watch it.

use std::time::Duration;

/// Upper bounds of the buckets, in milliseconds.
const FIRST_TOKEN_MS: [u64; 14] = [
    10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 20_000, 40_000, 80_000, 160_000,
];
const BETWEEN_TOKENS_MS: [u64; 14] = [
    1, 2, 5, 10, 20, 30, 50, 75, 100, 200, 500, 1000, 2500, 10_000,
];

/// How often a duration was how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Histogram<const N: usize> {
    bounds_ms: &'static [u64; N],
    /// Observations up to each bound that are over the one before.
    counts: [u64; N],
    /// All observations.
    pub count: u64,
    /// Their sum.
    pub sum: Duration,
}

impl<const N: usize> Histogram<N> {
    /// Nothing observed yet. The bounds are in ascending order.
    const fn new(bounds_ms: &'static [u64; N]) -> Self {
        Self {
            bounds_ms,
            counts: [0; N],
            count: 0,
            sum: Duration::ZERO,
        }
    }

    fn observe(&mut self, time: Duration) {
        let bucket = self
            .bounds_ms
            .partition_point(|&bound| Duration::from_millis(bound) < time);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.count += 1;
        self.sum += time;
    }

    /// For each bound in seconds, how many observations were not over it.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut below = 0;
        self.bounds_ms
            .iter()
            .zip(self.counts)
            .map(move |(&bound, count)| {
                below += count;
                (Duration::from_millis(bound).as_secs_f64(), below)
            })
    }
}

/// Counters and times since the start, as of the latest step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measures {
    /// Requests with rows in a decode, summed over all decodes.
    pub busy: u64,
    /// Tokens computed that were not the latest of a reply: prompts, and what
    /// is computed again after a pause.
    pub prompt_tokens: u64,
    /// The share of those rows in the time of the decodes they were in.
    pub prompt_time: Duration,
    /// The rest of that time.
    pub reply_time: Duration,
    /// From the submission of a request to its first token.
    pub first_token: Histogram<14>,
    /// From each token of a reply to the next, pauses included.
    pub between_tokens: Histogram<14>,
}

impl Default for Measures {
    fn default() -> Self {
        Self {
            busy: 0,
            prompt_tokens: 0,
            prompt_time: Duration::ZERO,
            reply_time: Duration::ZERO,
            first_token: Histogram::new(&FIRST_TOKEN_MS),
            between_tokens: Histogram::new(&BETWEEN_TOKENS_MS),
        }
    }
}

impl Measures {
    /// A decode for `requests` took `time`; `prompt` of its `rows` were not
    /// the latest tokens of replies.
    pub(super) fn decoded(&mut self, requests: usize, rows: usize, prompt: usize, time: Duration) {
        let share = time.mul_f64(prompt as f64 / rows as f64);
        self.busy += requests as u64;
        self.prompt_tokens += prompt as u64;
        self.prompt_time += share;
        self.reply_time += time.saturating_sub(share);
    }

    /// A token was sampled, so long after the request or the token before.
    pub(super) fn sampled(&mut self, is_first: bool, time: Duration) {
        if is_first {
            self.first_token.observe(time);
        } else {
            self.between_tokens.observe(time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_up_to_each_bound() {
        let mut histogram = Histogram::new(&[10, 1000]);
        for ms in [0, 10, 11, 1000, 1001] {
            histogram.observe(Duration::from_millis(ms));
        }
        let counts: Vec<_> = histogram.cumulative().collect();
        assert_eq!(counts, [(0.01, 2), (1.0, 4)]);
        assert_eq!((histogram.count, histogram.sum.as_millis()), (5, 2022));
    }

    #[test]
    fn the_time_of_a_decode_is_divided_by_rows() {
        let mut measures = Measures::default();
        measures.decoded(3, 10, 8, Duration::from_secs(1));
        measures.decoded(1, 1, 0, Duration::from_secs(1));
        assert_eq!((measures.busy, measures.prompt_tokens), (4, 8));
        assert_eq!(measures.prompt_time.as_millis(), 800);
        assert_eq!(measures.reply_time.as_millis(), 1200);
    }
}
