//! How far llama.cpp's kernels and ours are from the weights in F32:
//! `accuracy REFERENCE-F32.gguf MODEL.gguf` reads three texts token by token
//! and prints perplexities, and the mean Kullback-Leibler divergence of each
//! side's next-token distributions from those of the reference.
//!
//! `requantize MODEL.gguf FOLDER F32` makes a reference of the same weights.
//! `BATCH=1` in the environment reads single tokens, whose attention is computed
//! by another kernel than that of 64 (the default); `THREADS` is 2.

#[path = "../tests/vehicle/llama.rs"]
mod llama;

use llama::{Context, Model, Row, log_softmax};

const TEXTS: [(&str, &str); 3] = [
    ("prose", include_str!("texts/prose.txt")),
    ("code", include_str!("texts/code.txt")),
    ("French", include_str!("texts/french.txt")),
];

/// Tokens of each text.
const TOKENS: usize = 800;

/// Rows of a batch, if the environment's `BATCH` does not say another number.
const BATCH: usize = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [reference, model] = &arguments[..] else {
        panic!("usage: accuracy REFERENCE-F32.gguf MODEL.gguf");
    };
    let number = |name, default| match std::env::var(name) {
        Ok(text) => text.parse().expect(name),
        Err(_) => default,
    };
    let (threads, batch) = (number("THREADS", 2) as i32, number("BATCH", BATCH));
    let (reference, _) = Model::load(reference, false, true);
    let (stock, _) = Model::load(model, false, true);
    let (ours, report) = Model::load(model, true, true);
    eprintln!("{report}");

    println!("| text | tokens | perplexity: F32 | llama.cpp | ours | KL: llama.cpp | ours |");
    println!("|---|---|---|---|---|---|---|");
    let mut all = Sums::default();
    for (name, text) in TEXTS {
        let mut tokens = reference.tokenize(text);
        tokens.truncate(TOKENS);
        let mut sums = Sums::default();
        let mut contexts = [&reference, &stock, &ours].map(|model| Context::new(model, threads));
        for start in (0..tokens.len() - 1).step_by(batch) {
            let end = (start + batch).min(tokens.len() - 1);
            let row = |position: usize| Row {
                token: tokens[position],
                position,
                sequence: 0,
                logits: true,
            };
            let rows: Vec<Row> = (start..end).map(row).collect();
            let [reference, stock, ours] = contexts.each_mut().map(|c| c.decode_rows(&rows));
            for i in 0..rows.len() {
                let logits = [reference[i], stock[i], ours[i]];
                sums.add(logits.map(log_softmax), tokens[start + i + 1] as usize);
            }
        }
        sums.print(name);
        all.append(&sums);
    }
    all.print("all");
}

/// Sums over tokens: of the reference, of llama.cpp, of ours.
#[derive(Default)]
struct Sums {
    tokens: usize,
    log_likelihood: [f64; 3],
    divergence: [f64; 3],
}

impl Sums {
    /// Adds the distributions before the token `next`.
    fn add(&mut self, log_probabilities: [Vec<f64>; 3], next: usize) {
        self.tokens += 1;
        let reference = &log_probabilities[0];
        for (i, found) in log_probabilities.iter().enumerate() {
            self.log_likelihood[i] += found[next];
            let terms = reference.iter().zip(found).map(|(p, q)| p.exp() * (p - q));
            self.divergence[i] += terms.sum::<f64>();
        }
    }

    fn append(&mut self, other: &Sums) {
        self.tokens += other.tokens;
        for i in 0..3 {
            self.log_likelihood[i] += other.log_likelihood[i];
            self.divergence[i] += other.divergence[i];
        }
    }

    fn print(&self, name: &str) {
        let tokens = self.tokens as f64;
        let [f32, stock, ours] = self.log_likelihood.map(|sum| (-sum / tokens).exp());
        let [_, stock_kl, ours_kl] = self.divergence.map(|sum| sum / tokens);
        println!(
            "| {name} | {} | {f32:.3} | {stock:.3} | {ours:.3} | {stock_kl:.5} | {ours_kl:.5} |",
            self.tokens
        );
    }
}
