//! Times whole models with llama.cpp's own kernels and with ours, in turns:
//! `speed MODEL.gguf …` prints a table of medians.

#[path = "../tests/vehicle/llama.rs"]
mod llama;

use std::time::Instant;

use llama::{Context, Model, Row};

/// Loads that are timed.
const LOADS: usize = 9;

/// Prompts of 512 tokens that are timed.
const PREFILLS: usize = 5;

/// Steps that are timed for each number of streams.
const STEPS: usize = 24;

/// Tokens that a stream has already.
const CONTEXT: usize = 64;

fn main() {
    llama::start();
    let threads = std::env::var("THREADS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(2);
    println!("| model | | load | prefill 512 | 1 stream | 8 | 32 |\n|---|---|---|---|---|---|---|");
    for path in std::env::args().skip(1) {
        let loads = in_turns(&mut [false, true], LOADS, |&mut kernels, _| {
            drop(Model::load(&path, kernels, true));
        });
        let (stock, _) = Model::load(&path, false, true);
        let (ours, report) = Model::load(&path, true, true);
        eprintln!("{path}: {report}");
        let mut contexts = [Context::new(&stock, threads), Context::new(&ours, threads)];
        let n_vocab = stock.n_vocab();
        let prefills = in_turns(&mut contexts, PREFILLS, |context, run| {
            prefill(context, n_vocab, run)
        });
        let mut columns = vec![loads, prefills];
        for streams in [1, 8, 32] {
            for context in &mut contexts {
                fill(context, n_vocab, streams);
            }
            columns.push(in_turns(&mut contexts, STEPS, |context, run| {
                step(context, n_vocab, streams, run)
            }));
        }
        let name = path.rsplit('/').next().unwrap_or(&path);
        let row = |cell: &dyn Fn(&[f64; 2]) -> String| {
            columns.iter().map(cell).collect::<Vec<_>>().join(" | ")
        };
        println!(
            "| {name} | llama.cpp, ms | {} |",
            row(&|c| format!("{:.1}", c[0]))
        );
        println!("| | ours, ms | {} |", row(&|c| format!("{:.1}", c[1])));
        println!("| | ratio | {} |", row(&|c| format!("{:.2}", c[0] / c[1])));
    }
}

/// Medians of what `run` takes with each side, in milliseconds; the runs take
/// turns, so that a busy neighbour meets both.
fn in_turns<T>(sides: &mut [T; 2], runs: usize, run: impl Fn(&mut T, usize)) -> [f64; 2] {
    let mut times = [const { Vec::new() }; 2];
    for i in 0..=runs {
        for (side, times) in sides.iter_mut().zip(&mut times) {
            let start = Instant::now();
            run(side, i);
            // The first is to warm up.
            if i > 0 {
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    times.map(median)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Some token.
fn token(n_vocab: usize, i: usize) -> i32 {
    (i.wrapping_mul(7919) % (n_vocab - 1000) + 500) as i32
}

fn prefill(context: &mut Context, n_vocab: usize, run: usize) {
    context.clear();
    let rows: Vec<Row> = (0..512)
        .map(|i| Row {
            token: token(n_vocab, i + 1000 * run),
            position: i,
            sequence: 0,
            logits: i == 511,
        })
        .collect();
    context.decode_rows(&rows);
}

/// Gives each of the streams some context.
fn fill(context: &mut Context, n_vocab: usize, streams: usize) {
    context.clear();
    for sequence in 0..streams {
        let row = |i| Row {
            token: token(n_vocab, i * streams + sequence),
            position: i,
            sequence,
            logits: false,
        };
        context.decode_rows(&(0..CONTEXT).map(row).collect::<Vec<_>>());
    }
}

fn step(context: &mut Context, n_vocab: usize, streams: usize, run: usize) {
    let row = |sequence| Row {
        token: token(n_vocab, run * streams + sequence),
        position: CONTEXT + run,
        sequence,
        logits: true,
    };
    context.decode_rows(&(0..streams).map(row).collect::<Vec<_>>());
}
