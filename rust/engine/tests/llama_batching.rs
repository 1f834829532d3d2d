//! Requests beside each other get what each gets alone, with a real model.
//! `LLM_API_TEST_MODEL` names a GGUF file.
//!
//! Another batch shape, or a prompt computed again after a pause, rounds
//! otherwise, and where two tokens are nearly as likely that can turn the
//! choice. So it is not the texts that are compared but every choice: after
//! the same tokens comes the same token, unless it was a near tie.
#![cfg(feature = "llama")]

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use llm_engine::model::llama::{LlamaConfig, LlamaLoader};
use llm_engine::model::{DecodeError, Loader, Model, ModelInfo, Row, SeqId, Span, Token, Vocab};
use llm_engine::sampler::SamplingParams;
use llm_engine::stop::StopRules;
use llm_engine::{
    Config, Engine, Error, Event, EventKind, FinishReason, Request, RequestId, Usage,
};

/// How much rounding may turn: the lead of the likeliest token over the second
/// in the one run plus that in the other, in units of the logits. Choices that
/// turned had up to 0.9; a mistake in the cells gives several units.
const NEAR_TIE: f32 = 1.5;

/// What the model found likeliest, and how far it was ahead of the second.
#[derive(Debug, Clone, Copy)]
struct Choice {
    token: Token,
    lead: f32,
}

impl Choice {
    fn of(logits: &[f32]) -> Self {
        let mut best = [(0, f32::NEG_INFINITY); 2];
        for (token, &logit) in logits.iter().enumerate() {
            if logit > best[0].1 {
                best = [(token as Token, logit), best[0]];
            } else if logit > best[1].1 {
                best[1] = (token as Token, logit);
            }
        }
        Self {
            token: best[0].0,
            lead: best[0].1 - best[1].1,
        }
    }
}

/// Every choice of a run, by the tokens before it.
type Choices = HashMap<Vec<Token>, Choice>;

/// Notes every choice of a model on its way to the engine.
struct Observed<L> {
    loader: L,
    choices: Arc<Mutex<Choices>>,
}

struct ObservedModel<'a> {
    model: &'a mut dyn Model,
    /// The tokens in the cells of each sequence.
    tokens: BTreeMap<SeqId, Vec<Token>>,
    choices: Arc<Mutex<Choices>>,
}

impl<L: Loader> Loader for Observed<L> {
    fn load(&mut self) -> Result<Arc<dyn Vocab>, Error> {
        self.loader.load()
    }

    fn with_model(&mut self, serve: &mut dyn FnMut(&mut dyn Model)) -> Result<(), Error> {
        self.loader.with_model(&mut |model| {
            serve(&mut ObservedModel {
                model,
                tokens: BTreeMap::new(),
                choices: Arc::clone(&self.choices),
            });
        })
    }
}

impl Model for ObservedModel<'_> {
    fn info(&self) -> &ModelInfo {
        self.model.info()
    }

    fn decode(&mut self, rows: &[Row]) -> Result<(), DecodeError> {
        self.model.decode(rows)?;
        let mut choices = self.choices.lock().unwrap();
        for (index, row) in rows.iter().enumerate() {
            let tokens = self.tokens.entry(row.sequence).or_default();
            assert_eq!(row.position as usize, tokens.len(), "{row:?}");
            tokens.push(row.token);
            if row.logits {
                choices.insert(tokens.clone(), Choice::of(self.model.logits(index)));
            }
        }
        Ok(())
    }

    fn logits(&self, row: usize) -> &[f32] {
        self.model.logits(row)
    }

    fn remove(&mut self, sequence: SeqId, from: i32, to: i32) -> bool {
        assert_eq!((from, to), (0, -1), "nothing is shifted here");
        self.tokens.remove(&sequence);
        self.model.remove(sequence, from, to)
    }

    fn shift(&mut self, _: SeqId, _: i32, _: i32, _: i32) {
        unreachable!("nothing is shifted here");
    }

    fn copy(&mut self, _: SeqId, _: SeqId, _: i32, _: i32) {
        unreachable!("nothing is copied here");
    }
}

/// How a run ended for each request, and the choices of all.
struct Run {
    ends: Vec<(FinishReason, Usage)>,
    texts: Vec<String>,
    choices: Choices,
}

fn run(config: Config, prompts: &[String], max_tokens: u32) -> Option<Run> {
    let Some(path) = std::env::var_os("LLM_API_TEST_MODEL") else {
        eprintln!("not run: LLM_API_TEST_MODEL does not name a GGUF file");
        return None;
    };
    let choices = Arc::default();
    let loader = Observed {
        loader: LlamaLoader::new(LlamaConfig {
            path: path.into(),
            backends: backends_folder(),
            cells: config.pool,
            sequences: config.parallel,
            threads: 2,
            kernels: true,
            gpu_layers: 0,
            rope_freq_base: 0.0,
            rope_freq_scale: 0.0,
        }),
        choices: Arc::clone(&choices),
    };
    let mut engine = Engine::start(config, loader).unwrap();
    let ids: Vec<RequestId> = prompts
        .iter()
        .map(|prompt| engine.submit(greedy(&engine, prompt, max_tokens)).unwrap())
        .collect();
    let (mut texts, mut ends) = (HashMap::<_, String>::new(), HashMap::new());
    while ends.len() < ids.len() {
        let mut events = Vec::new();
        assert!(engine.wait(Duration::from_secs(60)), "the engine hangs");
        engine.drain(&mut events);
        for Event { id, kind } in events {
            match kind {
                EventKind::Delta(text) => *texts.entry(id).or_default() += &text,
                EventKind::End { reason, usage } => {
                    assert!(ends.insert(id, (reason, usage)).is_none());
                }
            }
        }
    }
    engine.close();
    let choices = std::mem::take(&mut *choices.lock().unwrap());
    Some(Run {
        ends: ids.iter().map(|id| ends.remove(id).unwrap()).collect(),
        texts: ids
            .iter()
            .map(|id| texts.remove(id).unwrap_or_default())
            .collect(),
        choices,
    })
}

/// `LLM_API_BACKENDS`, or where the build put them.
fn backends_folder() -> PathBuf {
    std::env::var_os("LLM_API_BACKENDS")
        .or(llama_cpp_sys_2::BACKENDS_DIR.map(Into::into))
        .expect("built with dynamic-backends")
        .into()
}

fn greedy(engine: &Engine, prompt: &str, max_tokens: u32) -> Request {
    let span = Span {
        text: prompt.into(),
        is_data: false,
    };
    Request {
        prompt: engine.vocab().tokenize(&[span]).unwrap(),
        sampling: SamplingParams {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            typical_p: 1.0,
            tail_free_sampling_z: 1.0,
            penalty_repetition: 1.0,
            penalty_frequency: 0.0,
            penalty_presence: 0.0,
            penalty_last_n: 0,
            mirostat: 0,
            mirostat_tau: 5.0,
            mirostat_eta: 0.1,
            seed: Some(0),
        },
        stop: StopRules::none(),
        max_tokens: Some(max_tokens),
        max_time: None,
        ignore_eos: true,
        n_keep: 0,
    }
}

/// Prompts of 6 to 100 tokens, no two alike.
fn prompts(count: usize) -> Vec<String> {
    const SUBJECTS: [&str; 8] = [
        "The capital of France is",
        "Once upon a time, there was a",
        "Water boils when",
        "def add(a, b):\n    return",
        "The best way to learn a language is",
        "In the year 1900, the city of",
        "1, 2, 3, 4,",
        "Dear Sir or Madam, I am writing",
    ];
    let filler = "The quick brown fox jumps over the lazy dog. ";
    (0..count)
        .map(|index| {
            let subject = SUBJECTS[index % SUBJECTS.len()];
            format!("Text {index}. {}{subject}", filler.repeat(index * 5 % 9))
        })
        .collect()
}

/// Every choice of `run` that stands after tokens which `alone` had as well
/// is the same, or a near tie in both; returns how many there were.
fn compare(alone: &Run, run: &Run) -> usize {
    let mut compared = 0;
    for (tokens, choice) in &run.choices {
        let Some(expected) = alone.choices.get(tokens) else {
            continue;
        };
        compared += 1;
        assert!(
            choice.token == expected.token || expected.lead + choice.lead < NEAR_TIE,
            "{choice:?} instead of {expected:?} after {tokens:?}"
        );
    }
    compared
}

#[test]
fn beside_others_and_paused_as_alone() {
    const REQUESTS: usize = 10;
    const TOKENS: u32 = 48;
    let prompts = prompts(REQUESTS);
    let config = |pool, parallel| Config {
        context: 256,
        pool,
        parallel,
        queue: REQUESTS as u32,
    };
    let Some(alone) = run(config(256, 1), &prompts, TOKENS) else {
        return;
    };
    let together = run(config(2048, 8), &prompts, TOKENS).unwrap();
    let crowded = run(config(256, 8), &prompts, TOKENS).unwrap();

    assert!(alone.choices.len() >= REQUESTS * TOKENS as usize - REQUESTS);
    for run in [&together, &crowded] {
        // Turned choices are rare: most of what was chosen can be compared.
        let compared = compare(&alone, run);
        assert!(compared > alone.choices.len() / 4, "{compared} compared");
        for ((reason, usage), (_, expected)) in run.ends.iter().zip(&alone.ends) {
            assert_eq!(reason, &FinishReason::Length);
            assert_eq!(usage.prompt_tokens, expected.prompt_tokens);
            assert_eq!(usage.completion_tokens, TOKENS);
        }
        let same = run.texts.iter().zip(&alone.texts).filter(|(a, b)| a == b);
        assert!(same.count() >= REQUESTS / 4);
    }
    let pauses = |run: &Run| run.ends.iter().map(|(_, usage)| usage.pauses).sum::<u32>();
    assert_eq!((pauses(&alone), pauses(&together)), (0, 0));
    assert!(pauses(&crowded) > 0, "the pool is small enough to pause");
}
