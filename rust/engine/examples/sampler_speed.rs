//! Times the default chain, ours and llama.cpp's, in turns on the same logits:
//! prints a table of medians in microseconds a token.
//!
//! Both do all that a token costs: llama.cpp's takes the vocabulary over into
//! its array, as `llama_sampler_sample` does, and both note the token for the
//! penalties to come. It is one that was drawn beforehand, as on rows that
//! come again and again the picked ones would be flattened out.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use llama_cpp_sys_2 as sys;
use llm_engine::model::Token;
use llm_engine::sampler::{Sampler, SamplingParams, Scratch};

/// Rows of a batch, which take turns, so that they do not all stay in the
/// nearest cache.
const ROWS: usize = 8;
/// Tokens that the penalties look back on.
const HISTORY: i32 = 64;
/// Tokens that are timed together.
const RUN: usize = 16;
/// Runs of each, in turns.
const RUNS: usize = 200;

fn main() {
    println!("| vocabulary | llama.cpp, µs | ours, µs | ours as a share |\n|---|---|---|---|");
    for n_vocab in [49_152, 262_144] {
        let mut random = fastrand::Rng::with_seed(1);
        let rows: Vec<_> = (0..ROWS).map(|_| row(n_vocab, &mut random)).collect();
        let mut theirs = Theirs::new(n_vocab);
        let mut ours = Ours::new();
        let mut times = [Vec::new(), Vec::new()];
        for run in 0..=RUNS {
            let tokens: Vec<Token> = (0..RUN).map(|_| random.usize(..n_vocab) as Token).collect();
            let turns = rows.iter().cycle().zip(&tokens);
            let measured = [
                time(turns.clone(), |row, token| theirs.sample(row, token)),
                time(turns, |row, token| ours.sample(row, token)),
            ];
            // The first run fills buffers and histories.
            if run > 0 {
                for (times, measured) in times.iter_mut().zip(measured) {
                    times.push(measured);
                }
            }
        }
        let [theirs, ours] = times.map(median);
        println!(
            "| {n_vocab} | {theirs:.1} | {ours:.1} | {:.3} |",
            ours / theirs
        );
    }
}

/// Microseconds a token.
fn time<'a>(
    turns: impl Iterator<Item = (&'a Vec<f32>, &'a Token)>,
    mut sample: impl FnMut(&[f32], Token) -> Token,
) -> f64 {
    let start = Instant::now();
    for (row, &token) in turns {
        black_box(sample(black_box(row), token));
    }
    start.elapsed().as_secs_f64() * 1e6 / RUN as f64
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Logits as models have them: a bell curve, which has 1 or 2% of the
/// probability, and a few likely tokens.
fn row(n_vocab: usize, random: &mut fastrand::Rng) -> Vec<f32> {
    let mut row: Vec<f32> = (0..n_vocab)
        .map(|_| (0..12).map(|_| random.f32()).sum::<f32>() * 2.0 - 12.0)
        .collect();
    for rank in 0..50 {
        row[random.usize(..n_vocab)] = 18.0 - 2.0 * (rank as f32).ln_1p();
    }
    row
}

struct Ours {
    sampler: Sampler,
    scratch: Scratch,
}

impl Ours {
    fn new() -> Self {
        let params = SamplingParams {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.2,
            min_p: 0.0,
            typical_p: 1.0,
            tail_free_sampling_z: 1.0,
            penalty_repetition: 1.1,
            penalty_frequency: 0.1,
            penalty_presence: 0.0,
            penalty_last_n: HISTORY,
            mirostat: 0,
            mirostat_tau: 5.0,
            mirostat_eta: 0.1,
            seed: Some(1),
        };
        Self {
            sampler: Sampler::new(&params, None, Arc::default()),
            scratch: Scratch::default(),
        }
    }

    fn sample(&mut self, row: &[f32], token: Token) -> Token {
        let picked = self.sampler.sample(row, &mut self.scratch);
        self.sampler.accept(token);
        picked
    }
}

struct Theirs {
    chain: *mut sys::llama_sampler,
    candidates: Vec<sys::llama_token_data>,
}

impl Theirs {
    fn new(n_vocab: usize) -> Self {
        // SAFETY: the chain owns the samplers that are added to it.
        let chain = unsafe {
            let chain = sys::llama_sampler_chain_init(sys::llama_sampler_chain_default_params());
            for sampler in [
                sys::llama_sampler_init_penalties(n_vocab as i32, HISTORY, 1.1, 0.1, 0.0),
                sys::llama_sampler_init_top_k(40),
                sys::llama_sampler_init_typical(1.0, 1),
                sys::llama_sampler_init_top_p(0.2, 1),
                sys::llama_sampler_init_temp(0.8),
                sys::llama_sampler_init_dist(1),
            ] {
                sys::llama_sampler_chain_add(chain, sampler);
            }
            chain
        };
        Self {
            chain,
            candidates: Vec::new(),
        }
    }

    fn sample(&mut self, row: &[f32], token: Token) -> Token {
        self.candidates.clear();
        self.candidates
            .extend(
                (0..)
                    .zip(row)
                    .map(|(id, &logit)| sys::llama_token_data { id, logit, p: 0.0 }),
            );
        let mut array = sys::llama_token_data_array {
            data: self.candidates.as_mut_ptr(),
            size: self.candidates.len(),
            selected: -1,
            sorted: false,
        };
        // SAFETY: the array is of the candidates, and `dist` selects one.
        unsafe {
            sys::llama_sampler_apply(self.chain, &mut array);
            sys::llama_sampler_accept(self.chain, token);
        }
        self.candidates[array.selected as usize].id
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        // SAFETY: made by `llama_sampler_chain_init`, and owned by this alone.
        unsafe { sys::llama_sampler_free(self.chain) }
    }
}
