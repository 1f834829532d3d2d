//! Reads the values of a file of recorded results.

use llm_engine::sampler::SamplingParams;
use serde_json::Value;

/// The parameters of a case or run; those that it lacks are off.
pub fn params(of: &Value) -> SamplingParams {
    let float = |key: &str, off: f32| match &of[key] {
        Value::Null => off,
        value => number(value) as f32,
    };
    let int = |key: &str| of[key].as_i64().unwrap_or(0);
    SamplingParams {
        temperature: float("temperature", 1.0),
        top_k: int("top_k") as i32,
        top_p: float("top_p", 1.0),
        min_p: 0.0,
        typical_p: float("typical_p", 1.0),
        tail_free_sampling_z: float("tfs_z", 1.0),
        penalty_repetition: float("repeat_penalty", 1.0),
        penalty_frequency: float("frequency_penalty", 0.0),
        penalty_presence: float("presence_penalty", 0.0),
        penalty_last_n: int("repeat_last_n") as i32,
        mirostat: int("mirostat") as u8,
        mirostat_tau: float("mirostat_tau", 0.0),
        mirostat_eta: float("mirostat_eta", 0.0),
        seed: Some(0),
    }
}

/// The logits of a case or step.
pub fn logits(value: &Value) -> Vec<f32> {
    let values = list(value).iter();
    values.map(|logit| number(logit) as f32).collect()
}

/// Whether a case has a flag.
pub fn flagged(case: &Value, flag: &str) -> bool {
    list(&case["flags"]).iter().any(|given| given == flag)
}

/// A list, empty if there is none.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A number, also of those that JSON lacks; NaN, which nothing expected
/// equals but itself, for what is none.
pub fn number(value: &Value) -> f64 {
    match value.as_str() {
        Some("inf") => f64::INFINITY,
        Some("-inf") => f64::NEG_INFINITY,
        _ => value.as_f64().unwrap_or(f64::NAN),
    }
}

/// An integer, or one that is no token.
pub fn integer(value: &Value) -> i64 {
    value.as_i64().unwrap_or(i64::MIN)
}
