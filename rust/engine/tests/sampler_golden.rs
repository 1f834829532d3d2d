//! The results of llama.cpp's samplers of 2023 and 2024, recorded.

#[path = "../examples/replay_samplers/replay/mod.rs"]
mod replay;

const GOLDEN: &str = include_str!("../../../tests/golden/samplers/sampler_golden.json");

#[test]
fn all_recorded_results_are_reproduced() {
    let mut outcome = replay::Outcome::default();
    outcome.replay("sampler_golden.json", GOLDEN);
    assert_eq!(outcome.failures, [""; 0]);
    assert_eq!((outcome.passed, outcome.failed), (76, 0));
}

#[test]
fn a_wrong_result_is_reported() {
    let wrong = GOLDEN.replacen("\"greedy\":12", "\"greedy\":13", 1);
    assert!(wrong != GOLDEN);
    let mut outcome = replay::Outcome::default();
    outcome.replay("sampler_golden.json", &wrong);
    assert_eq!((outcome.passed, outcome.failed), (75, 1));
}
