//! An engine over a real model, and every choice that the model makes.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use llm_engine::lookup::Terms;
use llm_engine::model::llama::{CacheType, FlashAttention, LlamaConfig, LlamaLoader};
use llm_engine::model::{DecodeError, Loader, Model, ModelInfo, Row, SeqId, Span, Token, Vocab};
use llm_engine::sampler::SamplingParams;
use llm_engine::stop::StopRules;
use llm_engine::{
    Config, Engine, Error, Event, EventKind, FinishReason, Request, RequestId, Usage,
};

use crate::{recurrent, windows};

/// How far rounding may move a logit where a prompt is computed in other pieces
/// or beside others, or kernels of llama.cpp's by another number of threads. Up
/// to 0.29 was seen; a mistake in the cells moves some by several units.
pub const ROUNDING: f32 = 0.5;

/// A model to test with, and by whose kernels it is computed.
#[derive(Debug, Clone)]
pub struct Subject {
    path: PathBuf,
    pub kernels: bool,
}

impl Subject {
    /// The model that `LLM_API_TEST_MODEL` names, with our kernels.
    pub fn demo() -> Self {
        let path = std::env::var_os("LLM_API_TEST_MODEL")
            .expect("LLM_API_TEST_MODEL names no GGUF file: make test-rust sets it");
        Self {
            path: path.into(),
            kernels: true,
        }
    }

    /// One with sliding windows.
    pub fn windows() -> Self {
        let demo = Self::demo();
        Self {
            path: windows::model(&demo.path),
            ..demo
        }
    }

    /// One with recurrent state.
    pub fn recurrent() -> Self {
        let demo = Self::demo();
        Self {
            path: recurrent::model(&demo.path),
            ..demo
        }
    }

    /// One of which our kernels leave some weights to llama.cpp.
    pub fn mixed() -> Self {
        let demo = Self::demo();
        Self {
            path: windows::mixed(&demo.path),
            ..demo
        }
    }

    /// The same, with our kernels and with llama.cpp's.
    pub fn both(&self) -> [Self; 2] {
        [true, false].map(|kernels| Self {
            kernels,
            ..self.clone()
        })
    }
}

/// What the model found likeliest, and how far it was ahead of the second.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
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
pub type Choices = HashMap<Vec<Token>, Choice>;

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

    fn drafts(&self) -> Terms {
        self.model.drafts()
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
        assert_eq!(to, -1, "nothing is shifted here");
        let tokens = self.tokens.entry(sequence).or_default();
        tokens.truncate(from as usize);
        self.model.remove(sequence, from, to)
    }

    fn shift(&mut self, _: SeqId, _: i32, _: i32, _: i32) {
        unreachable!("nothing is shifted here");
    }

    fn copy(&mut self, from: SeqId, to: SeqId, begin: i32, end: i32) {
        assert_eq!(begin, 0);
        let tokens = self.tokens[&from][..end as usize].to_vec();
        self.tokens.insert(to, tokens);
        self.model.copy(from, to, begin, end);
    }

    fn intact(&self, sequence: SeqId, len: i32) -> bool {
        self.model.intact(sequence, len)
    }
}

/// How a request ended.
pub struct Reply {
    pub text: String,
    pub reason: FinishReason,
    pub usage: Usage,
}

/// An engine whose model is observed.
pub struct Bench {
    pub engine: Engine,
    choices: Arc<Mutex<Choices>>,
}

impl Bench {
    pub fn new(subject: &Subject, config: Config) -> Self {
        let choices = Arc::default();
        let loader = Observed {
            loader: LlamaLoader::new(LlamaConfig {
                path: subject.path.clone(),
                backends: backends_folder(),
                cells: config.pool,
                sequences: config.parallel,
                threads: 2,
                kernels: subject.kernels,
                gpu_layers: 0,
                rope_freq_base: 0.0,
                cache_types: (CacheType::F16, CacheType::F16),
                flash_attention: FlashAttention::Auto,
                rope_freq_scale: 0.0,
            }),
            choices: Arc::clone(&choices),
        };
        Self {
            engine: Engine::start(config, loader).unwrap(),
            choices,
        }
    }

    /// Submits all at once and waits for all.
    pub fn replies(&self, requests: Vec<Request>) -> Vec<Reply> {
        let submit = |request| self.engine.submit(request).unwrap();
        let ids: Vec<RequestId> = requests.into_iter().map(submit).collect();
        let (mut texts, mut ends) = (HashMap::<_, String>::new(), HashMap::new());
        while ends.len() < ids.len() {
            let mut events = Vec::new();
            assert!(
                self.engine.wait(Duration::from_secs(60)),
                "the engine hangs"
            );
            self.engine.drain(&mut events);
            for Event { id, kind } in events {
                match kind {
                    EventKind::Delta(text) => *texts.entry(id).or_default() += &text,
                    EventKind::End { reason, usage } => {
                        assert!(ends.insert(id, (reason, usage)).is_none());
                    }
                }
            }
        }
        let reply = |id| {
            let (reason, usage) = ends.remove(id).unwrap();
            let text = texts.remove(id).unwrap_or_default();
            Reply {
                text,
                reason,
                usage,
            }
        };
        ids.iter().map(reply).collect()
    }

    /// What was chosen so far.
    pub fn choices(&self) -> Choices {
        self.choices.lock().unwrap().clone()
    }
}

/// `LLM_API_BACKENDS`, or where the build put them.
fn backends_folder() -> PathBuf {
    std::env::var_os("LLM_API_BACKENDS")
        .or(llama_cpp_sys_2::BACKENDS_DIR.map(Into::into))
        .expect("built with dynamic-backends")
        .into()
}

pub fn greedy(engine: &Engine, prompt: &str, max_tokens: u32) -> Request {
    let span = Span {
        text: prompt.into(),
        is_data: false,
    };
    Request {
        prompt: engine.vocab().tokenize(&[span]).unwrap(),
        sampling: SamplingParams::greedy(),
        stop: StopRules::none(),
        max_tokens: Some(max_tokens),
        max_time: None,
        ignore_eos: true,
        n_keep: 0,
    }
}

/// Asserts that every choice of `run` that stands after tokens which `alone`
/// had as well can be the same but for logits moved by up to `rounding`: it is
/// the same token and about as far ahead, or both were nearly ties. With 0 it
/// is as far ahead to the bit. Returns how many were compared.
pub fn compare(alone: &Choices, run: &Choices, rounding: f32) -> usize {
    let mut compared = 0;
    for (tokens, choice) in run {
        let Some(expected) = alone.get(tokens) else {
            continue;
        };
        compared += 1;
        let moved = if choice.token == expected.token {
            (choice.lead - expected.lead).abs()
        } else {
            choice.lead + expected.lead
        };
        assert!(
            moved <= 2.0 * rounding,
            "{choice:?} instead of {expected:?} after {tokens:?}"
        );
    }
    compared
}
