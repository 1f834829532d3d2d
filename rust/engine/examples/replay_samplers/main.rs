//! Replays files of recorded sampler results: `replay_samplers FILE...`.
//!
//! Prints each failure, and at last how many cases passed and failed. Exits 1
//! if one failed or a file is none of these, and 2 without a file.

mod replay;

use std::process::ExitCode;

fn main() -> ExitCode {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    if paths.is_empty() {
        eprintln!("usage: replay_samplers FILE...");
        return ExitCode::from(2);
    }
    let mut outcome = replay::Outcome::default();
    for path in paths {
        match std::fs::read_to_string(&path) {
            Ok(text) => outcome.replay(&path, &text),
            Err(error) => outcome.fail(&path, vec![error.to_string()]),
        }
    }
    for failure in &outcome.failures {
        println!("{failure}");
    }
    println!("{} passed, {} failed", outcome.passed, outcome.failed);
    if outcome.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
