//! Compares the samplers with recorded results, in the format
//! `sampler-golden/1`.
//!
//! Every filter is called alone and one after another, as the file has it; the
//! distribution that they lead to is then computed once more by the chain that
//! the engine uses, which takes short cuts.

mod values;

use llm_engine::model::Token;
use llm_engine::sampler::candidates::Candidates;
use llm_engine::sampler::logits::Logits;
use llm_engine::sampler::mirostat::{self, Mirostat, Version};
use llm_engine::sampler::penalties::Penalties;
use llm_engine::sampler::{
    SamplingParams, chain, greedy, tail_free, temperature, top_k, top_p, typical,
};
use serde_json::{Map, Value};
use values::{flagged, integer, list, logits, number, params};

/// The filters of a chain, in its order.
const STAGES: [&str; 5] = ["top_k", "tail_free", "typical", "top_p", "temp"];
/// All that a case may expect. The results of 2023, where they differ, are
/// those of another order than ours.
const EXPECTATIONS: [&str; 6] = [
    "penalized",
    "greedy",
    "chain",
    "chain_2023",
    "alone",
    "mirostat",
];

/// How many cases passed, and what was wrong with the others.
#[derive(Default)]
pub struct Outcome {
    pub passed: usize,
    pub failed: usize,
    /// A line each: the case, the stage and the difference.
    pub failures: Vec<String>,
}

impl Outcome {
    /// Replays the cases and runs in `text`, the contents of the file `name`.
    pub fn replay(&mut self, name: &str, text: &str) {
        let file: Value = match serde_json::from_str(text) {
            Ok(file) => file,
            Err(error) => return self.fail(name, vec![error.to_string()]),
        };
        if file["format"] != "sampler-golden/1" {
            return self.fail(name, vec!["is not of format sampler-golden/1".into()]);
        }
        for case in list(&file["cases"]) {
            self.count(case, replay_case);
        }
        for run in list(&file["mirostat_runs"]) {
            self.count(run, replay_run);
        }
    }

    /// Counts a case that failed for these reasons.
    pub fn fail(&mut self, name: &str, reasons: Vec<String>) {
        self.failed += 1;
        let lines = reasons.iter().map(|reason| format!("{name}: {reason}"));
        self.failures.extend(lines);
    }

    fn count(&mut self, case: &Value, replay: fn(&Value, &mut Check)) {
        let mut check = Check::default();
        replay(case, &mut check);
        if check.failures.is_empty() {
            self.passed += 1;
        } else {
            let name = case["name"].as_str().unwrap_or("a case without a name");
            self.fail(name, check.failures);
        }
    }
}

/// What is wrong with one case.
#[derive(Default)]
struct Check {
    failures: Vec<String>,
}

impl Check {
    fn that(&mut self, holds: bool, failure: impl FnOnce() -> String) {
        if !holds {
            self.failures.push(failure());
        }
    }

    fn close(&mut self, what: &str, got: f32, want: f64, tolerance: Tolerance) {
        self.that(tolerance.allows(got.into(), want), || {
            format!("{what}: {got}, not {want}")
        });
    }

    /// Whether the candidates are those of `want`, in its order.
    fn same_set(&mut self, what: &str, got: &Candidates, want: &Value) {
        let ids: Vec<i64> = got.items().iter().map(|item| item.id.into()).collect();
        let want_ids: Vec<i64> = list(&want["ids"]).iter().map(integer).collect();
        if ids != want_ids {
            return self
                .failures
                .push(format!("{what}: {ids:?}, not {want_ids:?}"));
        }
        let want_p = list(&want["p"]);
        self.that(want_p.len() == ids.len(), || {
            format!("{what}: {} ids with {} p", ids.len(), want_p.len())
        });
        for (item, want) in got.items().iter().zip(want_p) {
            let what = format!("{what}: p of {}", item.id);
            self.close(&what, item.p, number(want), Tolerance::P);
        }
    }
}

/// How far a number may be off, as the format says.
#[derive(Clone, Copy)]
struct Tolerance {
    absolute: f64,
    relative: f64,
}

impl Tolerance {
    const P: Self = Self::new(1e-6, 1e-4);
    const PENALIZED: Self = Self::new(1e-6, 1e-5);
    const MU: Self = Self::new(1e-4, 1e-4);
    const SLOPE: Self = Self::new(0.0, 1e-3);
    const COUNT: Self = Self::new(0.0, 1e-2);

    const fn new(absolute: f64, relative: f64) -> Self {
        Self { absolute, relative }
    }

    fn allows(self, got: f64, want: f64) -> bool {
        if !want.is_finite() || !got.is_finite() {
            return got == want || (got.is_nan() && want.is_nan());
        }
        (got - want).abs() <= self.absolute + self.relative * want.abs()
    }
}

fn replay_case(case: &Value, check: &mut Check) {
    let raw = logits(&case["logits"]);
    let params = params(&case["params"]);
    let expect = &case["expect"];
    check.that(raw.len() as i64 == integer(&case["n_vocab"]), || {
        format!("{} logits for n_vocab {}", raw.len(), case["n_vocab"])
    });
    for key in expect.as_object().into_iter().flat_map(Map::keys) {
        check.that(EXPECTATIONS.contains(&key.as_str()), || {
            format!("unknown expectation {key}")
        });
    }

    let newline = match case["params"]["penalize_newline"].as_bool() {
        Some(true) => None,
        _ => case["newline_id"].as_i64().map(|id| id as Token),
    };
    let mut penalties = Penalties::new(&params, newline);
    for token in list(&case["history"]) {
        penalties.accept(integer(token) as Token);
    }
    let mut replaced = Vec::new();
    penalties.replace(&raw, &[], &mut replaced);
    let logits = Logits::new(&raw, &replaced);

    check_penalized(&raw, &logits, &expect["penalized"], check);
    if let Some(want) = expect["greedy"].as_i64() {
        let got = greedy::greedy(&logits).map(i64::from);
        check.that(got == Some(want), || format!("greedy: {got:?}, not {want}"));
    }
    if let Some(want) = expect["chain"].as_object() {
        check_chain(&params, &logits, want, check);
    }
    for (stage, want) in expect["alone"].as_object().into_iter().flatten() {
        let mut candidates = Candidates::default();
        top_k::top_k(&logits, 0, &mut candidates);
        apply(stage, &params, &logits, &mut candidates, check);
        check.same_set(&format!("alone {stage}"), &candidates, want);
    }
    if expect["mirostat"].is_object() {
        check_mirostat(case, &params, &logits, check);
    }
}

fn check_penalized(raw: &[f32], logits: &Logits, want: &Value, check: &mut Check) {
    let want: Vec<f64> = match want {
        Value::Null => raw.iter().copied().map(f64::from).collect(),
        want => list(want).iter().map(number).collect(),
    };
    check.that(want.len() == raw.len(), || {
        format!("penalized: {} logits, not {}", want.len(), raw.len())
    });
    logits.for_each(|id, logit| {
        if let Some(&want) = want.get(id as usize) {
            let what = format!("penalized {id}");
            check.close(&what, logit, want, Tolerance::PENALIZED);
        }
    });
}

fn check_chain(
    params: &SamplingParams,
    logits: &Logits,
    want: &Map<String, Value>,
    check: &mut Check,
) {
    for stage in want.keys() {
        check.that(STAGES.contains(&stage.as_str()), || {
            format!("unknown stage {stage}")
        });
    }
    let mut candidates = Candidates::default();
    let mut kept = Value::Null;
    for stage in STAGES {
        // Later stages are not given where the recorded code had no defined
        // result.
        let Some(want) = want.get(stage) else { return };
        apply(stage, params, logits, &mut candidates, check);
        if want != "same" {
            kept = want.clone();
        }
        if want == "same" || stage != "typical" {
            candidates.sort();
            sort_as_drawn(&mut kept, logits);
        }
        check.same_set(&format!("chain {stage}"), &candidates, &kept);
    }
    chain::distribution(params, logits, 1.0, &mut candidates);
    candidates.sort();
    check.same_set("chain as drawn", &candidates, &kept);
}

/// Puts a set that typical sampling left in its own order in that of the draw.
fn sort_as_drawn(set: &mut Value, logits: &Logits) {
    let mut ranked = Candidates::default();
    top_k::top_k(logits, 0, &mut ranked);
    let rank = |id: i64| {
        ranked
            .items()
            .iter()
            .position(|item| i64::from(item.id) == id)
    };
    let ids = list(&set["ids"]).iter().map(integer);
    let mut pairs: Vec<(i64, Value)> = ids.zip(list(&set["p"]).iter().cloned()).collect();
    pairs.sort_by_key(|&(id, _)| rank(id));
    let (ids, p): (Vec<i64>, Vec<Value>) = pairs.into_iter().unzip();
    *set = serde_json::json!({ "ids": ids, "p": p });
}

/// Applies one filter and computes the probabilities of what it leaves.
fn apply(
    stage: &str,
    params: &SamplingParams,
    logits: &Logits,
    candidates: &mut Candidates,
    check: &mut Check,
) {
    match stage {
        "top_k" => top_k::top_k(logits, params.top_k, candidates),
        "tail_free" => tail_free::tail_free(candidates, params.tail_free_sampling_z),
        "typical" => typical::typical(candidates, params.typical_p),
        "top_p" => top_p::top_p(candidates, params.top_p),
        "temp" => temperature::temperature(candidates, params.temperature),
        _ => check.failures.push(format!("unknown stage {stage}")),
    }
    candidates.softmax();
}

fn check_mirostat(case: &Value, params: &SamplingParams, logits: &Logits, check: &mut Check) {
    let want = &case["expect"]["mirostat"];
    let mu = number(&case["params"]["mirostat_mu"]) as f32;
    let Some(mirostat) = Mirostat::new(params) else {
        return check
            .failures
            .push("mirostat: a result, but it is off".into());
    };
    let mirostat = Mirostat { mu, ..mirostat };
    let mut candidates = Candidates::default();
    if mirostat.version == Version::One {
        check_count(mu, params.temperature, logits, want, check);
        if flagged(case, "k_not_an_int") && want["k"] != "nan" {
            return;
        }
    }
    mirostat.keep(logits, params.temperature, 1.0, &mut candidates);
    candidates.sort();
    check.same_set("mirostat kept", &candidates, &want["kept"]);
    for draw in list(&want["draws"]) {
        let what = format!("mirostat draw of {}", draw["token"]);
        check_draw(&what, &mut mirostat.clone(), &candidates, draw, check);
    }
}

/// The slope and the count of mirostat 1, where `want` has them.
fn check_count(mu: f32, temperature: f32, logits: &Logits, want: &Value, check: &mut Check) {
    let mut candidates = Candidates::default();
    top_k::top_k(logits, 100, &mut candidates);
    temperature::temperature(&mut candidates, temperature);
    candidates.softmax();
    let s = mirostat::slope(candidates.items());
    let k = mirostat::count(s, mu, logits.len());
    if !want["s_hat"].is_null() {
        check.close("s_hat", s as f32, number(&want["s_hat"]), Tolerance::SLOPE);
    }
    if !want["k"].is_null() {
        check.close("k", k, number(&want["k"]), Tolerance::COUNT);
    }
}

/// The probability of a drawn token and the limit after it, which a case calls
/// `mu` and a run `mu_after`.
fn check_draw(
    what: &str,
    mirostat: &mut Mirostat,
    candidates: &Candidates,
    draw: &Value,
    check: &mut Check,
) {
    let token = integer(&draw["token"]);
    let mut items = candidates.items().iter();
    let Some(drawn) = items.find(|item| i64::from(item.id) == token) else {
        return check.failures.push(format!("{what}: not kept"));
    };
    check.close(
        &format!("{what}: p"),
        drawn.p,
        number(&draw["p"]),
        Tolerance::P,
    );
    mirostat.learn(drawn.p);
    let mu = draw.get("mu").unwrap_or(&draw["mu_after"]);
    check.close(
        &format!("{what}: mu"),
        mirostat.mu,
        number(mu),
        Tolerance::MU,
    );
}

fn replay_run(run: &Value, check: &mut Check) {
    let params = params(run);
    let Some(mut mirostat) = Mirostat::new(&params) else {
        return check.failures.push("mirostat is off".into());
    };
    let mut candidates = Candidates::default();
    for (i, step) in list(&run["steps"]).iter().enumerate() {
        let raw = logits(&step["logits"]);
        let logits = Logits::new(&raw, &[]);
        let mu = number(&step["mu_before"]);
        check.close(
            &format!("step {i}: mu before"),
            mirostat.mu,
            mu,
            Tolerance::MU,
        );
        if mirostat.version == Version::One {
            check_count(mirostat.mu, params.temperature, &logits, step, check);
        }
        mirostat.keep(&logits, params.temperature, 1.0, &mut candidates);
        let want = integer(&step["kept_count"]);
        check.that(candidates.len() as i64 == want, || {
            format!("step {i}: {} kept, not {want}", candidates.len())
        });
        check_draw(
            &format!("step {i}"),
            &mut mirostat,
            &candidates,
            step,
            check,
        );
    }
}
