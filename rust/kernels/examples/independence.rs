//! How much a stream's logits depend on what is computed beside it, with
//! llama.cpp's kernels and with ours: `independence MODEL.gguf` continues
//! texts alone and together, with given tokens, and compares.

#[path = "../tests/vehicle/llama.rs"]
mod llama;

use llama::{Context, Model, Row, argmax};

const TEXTS: [&str; 3] = [
    include_str!("texts/prose.txt"),
    include_str!("texts/code.txt"),
    include_str!("texts/french.txt"),
];

/// Tokens that a stream has before.
const PROMPT: usize = 64;

/// Steps of one token of each stream.
const STEPS: usize = 8;

/// Logits of each stream: after the prompt, and after each step.
type Logits = Vec<Vec<Vec<f32>>>;

fn main() {
    let path = std::env::args().nth(1).expect("usage: independence MODEL");
    println!("| | streams | what | equal | largest difference | mean KL | other choices |");
    println!("|---|---|---|---|---|---|---|");
    for (name, kernels) in [("llama.cpp", false), ("ours", true)] {
        let (model, _) = Model::load(&path, kernels, true);
        for streams in [8, 32] {
            let texts = texts(&model, streams);
            let alone: Logits = texts
                .iter()
                .flat_map(|text| decode(&model, std::slice::from_ref(text), Prompts::First))
                .collect();
            let compare = |what: &str, prompts, places: std::ops::Range<usize>| {
                let beside = decode(&model, &texts, prompts);
                let differences = Differences::new(&alone, &beside, places);
                println!("| {name} | {streams} | {what} | {differences} |");
            };
            compare("steps", Prompts::First, 1..STEPS + 1);
            if streams * PROMPT <= 512 {
                compare("prompts in one batch", Prompts::Together, 0..1);
                compare("prompts beside steps", Prompts::BesideSteps, 0..1);
                compare("steps beside prompts", Prompts::BesideSteps, 1..2);
            }
        }
    }
}

/// The tokens of each stream.
fn texts(model: &Model, streams: usize) -> Vec<Vec<i32>> {
    let tokens: Vec<i32> = TEXTS.iter().flat_map(|text| model.tokenize(text)).collect();
    let apart = (tokens.len() - PROMPT - STEPS) / streams;
    let text = |stream| tokens[stream * apart..][..PROMPT + STEPS].to_vec();
    (0..streams).map(text).collect()
}

/// When the prompts are computed.
#[derive(Clone, Copy)]
enum Prompts {
    /// One after the other, before all steps.
    First,
    /// In one batch, before all steps.
    Together,
    /// Each in a batch with the first steps of the stream before it.
    BesideSteps,
}

fn decode(model: &Model, texts: &[Vec<i32>], prompts: Prompts) -> Logits {
    let mut context = Context::new(model, 2);
    let streams = texts.len();
    let row = |sequence: usize, position: usize| Row {
        token: texts[sequence][position],
        position,
        sequence,
        logits: position >= PROMPT - 1,
    };
    let prompt = |sequence| (0..PROMPT).map(move |position| row(sequence, position));
    let step = |position| (0..streams).map(move |sequence| row(sequence, position));
    let mut batches: Vec<Vec<Row>> = match prompts {
        Prompts::First => (0..streams).map(|s| prompt(s).collect()).collect(),
        Prompts::Together => vec![(0..streams).flat_map(prompt).collect()],
        Prompts::BesideSteps => (0..=streams)
            .map(|s| {
                let before = s.checked_sub(1).map(|before| row(before, PROMPT));
                let next = (s < streams).then(|| prompt(s));
                // As the engine has them: a prompt's rows first.
                next.into_iter().flatten().chain(before).collect()
            })
            .collect(),
    };
    let done = match prompts {
        Prompts::BesideSteps => PROMPT + 1,
        _ => PROMPT,
    };
    batches.extend((done..PROMPT + STEPS).map(|position| step(position).collect()));
    let mut logits = vec![Vec::new(); streams];
    for batch in batches {
        let wanted = batch.iter().filter(|row| row.logits);
        for (row, found) in wanted.zip(context.decode_rows(&batch)) {
            logits[row.sequence].push(found.to_vec());
        }
    }
    logits
}

/// Of logits from those of the streams alone.
#[derive(Default)]
struct Differences {
    count: u32,
    equal: u32,
    largest: f32,
    divergence: f64,
    /// How many have another likeliest token.
    choices: u32,
}

impl Differences {
    fn new(alone: &Logits, beside: &Logits, places: std::ops::Range<usize>) -> Differences {
        let mut all = Differences::default();
        for (alone, beside) in alone.iter().zip(beside) {
            for (alone, beside) in alone[places.clone()].iter().zip(&beside[places.clone()]) {
                all.count += 1;
                all.equal += u32::from(alone == beside);
                all.choices += u32::from(argmax(alone) != argmax(beside));
                let differences = alone.iter().zip(beside).map(|(a, b)| (a - b).abs());
                all.largest = differences.fold(all.largest, f32::max);
                all.divergence += kl(alone, beside);
            }
        }
        all
    }
}

impl std::fmt::Display for Differences {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mean = self.divergence / f64::from(self.count);
        let (equal, count) = (self.equal, self.count);
        write!(
            f,
            "{equal} of {count} | {:.3} | {mean:.1e} | {}",
            self.largest, self.choices
        )
    }
}

/// The Kullback-Leibler divergence of the distributions.
fn kl(from: &[f32], to: &[f32]) -> f64 {
    let log_softmax = |logits: &[f32]| {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|x| f64::from(x - max).exp()).sum();
        let log = move |x: &f32| f64::from(x - max) - sum.ln();
        logits.iter().map(log).collect::<Vec<f64>>()
    };
    let (p, q) = (log_softmax(from), log_softmax(to));
    p.iter().zip(&q).map(|(p, q)| p.exp() * (p - q)).sum()
}
