//! What the samplers should do, slowly.

use llm_engine::model::Token;
use llm_engine::sampler::SamplingParams;

/// A distribution: tokens by falling probability.
#[derive(Debug, Clone)]
pub struct Reference {
    /// Id and logit, then the probability.
    pub kept: Vec<(Token, f64, f64)>,
    /// How close the closest cut was to its threshold.
    pub margin: f64,
}

impl Reference {
    pub fn new(row: &[f64]) -> Self {
        let kept = (0..)
            .zip(row)
            .map(|(id, &logit)| (id, logit, 0.0))
            .collect();
        let mut all = Self {
            kept,
            margin: f64::INFINITY,
        };
        all.sort();
        all
    }

    fn sort(&mut self) {
        self.kept
            .sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let max = self.kept[0].1;
        let weight = |logit: f64| {
            if logit == max {
                1.0
            } else {
                (logit - max).exp()
            }
        };
        let sum: f64 = self.kept.iter().map(|item| weight(item.1)).sum();
        for item in &mut self.kept {
            item.2 = weight(item.1) / sum;
        }
    }

    fn keep(&mut self, n: usize) {
        self.kept.truncate(n.max(1));
        self.sort();
    }

    /// Notes how far `value` is from `threshold`, and says whether it is above.
    fn above(&mut self, value: f64, threshold: f64) -> bool {
        self.margin = self.margin.min((value - threshold).abs());
        value > threshold
    }

    fn top_k(&mut self, k: i32) {
        if k > 0 {
            self.keep(k as usize);
        }
    }

    fn tail_free(&mut self, z: f64) {
        let p: Vec<f64> = self.kept.iter().map(|item| item.2).collect();
        if z >= 1.0 || p.len() <= 2 {
            return;
        }
        let mut second: Vec<f64> = p
            .windows(3)
            .map(|p| (p[0] - 2.0 * p[1] + p[2]).abs())
            .collect();
        let sum: f64 = second.iter().sum();
        self.margin = self.margin.min((sum - 1e-6).abs() * 1e4);
        let n = second.len() as f64;
        for share in &mut second {
            *share = if sum > 1e-6 { *share / sum } else { 1.0 / n };
        }
        let mut running = second[0];
        for (i, share) in second.iter().enumerate().skip(1) {
            running += share;
            if self.above(running, z) {
                return self.keep(i);
            }
        }
    }

    fn typical(&mut self, typical_p: f64) {
        if typical_p >= 1.0 {
            return;
        }
        let possible = self.kept.iter().filter(|item| item.2 > 0.0);
        let entropy: f64 = possible.map(|item| -item.2 * item.2.ln()).sum();
        let score = |item: &(Token, f64, f64)| (-item.2.ln() - entropy).abs();
        self.kept.sort_by(|a, b| score(a).total_cmp(&score(b)));
        let mut running = 0.0;
        for i in 0..self.kept.len() {
            running += self.kept[i].2;
            if self.above(running, typical_p) {
                // Which of two kept or dropped scores is less may be rounding.
                if let Some(next) = self.kept.get(i + 1) {
                    let gap = score(next) - score(&self.kept[i]);
                    self.margin = self.margin.min(gap);
                }
                return self.keep(i + 1);
            }
        }
        self.sort();
    }

    fn top_p(&mut self, top_p: f64) {
        if top_p >= 1.0 {
            return;
        }
        let mut running = 0.0;
        for i in 0..self.kept.len() {
            running += self.kept[i].2;
            if self.above(running, top_p) {
                return self.keep(i + 1);
            }
        }
    }

    fn min_p(&mut self, min_p: f64) {
        if min_p > 0.0 {
            let max = self.kept[0].2;
            let items = self.kept.clone().into_iter();
            self.kept = items
                .filter(|item| self.above(item.2 / max, min_p))
                .collect();
            self.sort();
        }
    }

    fn temperature(&mut self, temperature: f64) {
        for item in &mut self.kept {
            item.1 /= temperature;
        }
        self.sort();
    }

    pub fn chain(row: &[f64], params: &SamplingParams) -> Self {
        let mut set = Self::new(row);
        set.top_k(params.top_k);
        set.tail_free(params.tail_free_sampling_z.into());
        set.typical(params.typical_p.into());
        set.top_p(params.top_p.into());
        set.min_p(params.min_p.into());
        set.temperature(params.temperature.into());
        set
    }

    pub fn mirostat(row: &[f64], params: &SamplingParams, mu: f64) -> Self {
        let mut set = Self::new(row);
        set.temperature(params.temperature.into());
        let p: Vec<f64> = set.kept.iter().map(|item| item.2).collect();
        if params.mirostat == 2 {
            let n = p.iter().filter(|&&p| set.above(mu, -p.log2())).count();
            set.keep(n);
            return set;
        }
        let ranks = p.len().min(100) - 1;
        if p[ranks] < f64::from(f32::MIN_POSITIVE) {
            // The slope is infinite or NaN in 32 bits, as recorded cases say.
            set.margin = 0.0;
        }
        let t = |i: usize| ((i + 2) as f64 / (i + 1) as f64).ln();
        let tb: f64 = (0..ranks).map(|i| t(i) * (p[i] / p[i + 1]).ln()).sum();
        let s = tb / (0..ranks).map(|i| t(i) * t(i)).sum::<f64>();
        let e = s - 1.0;
        let k = (e * mu.exp2() / (1.0 - (p.len() as f64).powf(-e))).powf(1.0 / s);
        if k < 1e6 {
            let from_integer = (k - k.round()).abs() / k.max(1.0);
            set.margin = set.margin.min(from_integer).min(e.abs());
        }
        set.keep(k as usize);
        set
    }

    /// Where `u` falls, and how close that is to a neighbour.
    pub fn draw(&self, u: f64) -> (Token, f64, f64) {
        let mut sum = 0.0;
        for &(id, _, p) in &self.kept {
            sum += p;
            if sum > u {
                return (id, p, (sum - u).min(u - (sum - p)).min(self.margin));
            }
        }
        (-1, 0.0, 0.0)
    }
}
