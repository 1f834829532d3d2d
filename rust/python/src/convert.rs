//! Python's dicts and tuples, and what the engine takes and gives.

use std::path::PathBuf;
use std::time::Duration;

use llm_engine::model::llama::LlamaConfig;
use llm_engine::model::{Span, Token};
use llm_engine::sampler::SamplingParams;
use llm_engine::stop::StopRules;
use llm_engine::{Config, Error, Event, EventKind, FinishReason, Histogram, Request};
use pyo3::prelude::*;

/// `EngineConfig` of the stub.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct EngineConfig {
    model: PathBuf,
    backends: PathBuf,
    context: u32,
    pool: u32,
    parallel: u32,
    queue: u32,
    prompt_lookup: bool,
    threads: u32,
    kernels: bool,
    gpu_layers: i32,
    cache_type_k: String,
    cache_type_v: String,
    flash_attn: String,
    rope_freq_base: f32,
    rope_freq_scale: f32,
}

impl EngineConfig {
    pub fn engine(&self) -> Config {
        Config {
            context: self.context,
            pool: self.pool,
            parallel: self.parallel,
            queue: self.queue,
            prompt_lookup: self.prompt_lookup,
        }
    }

    pub fn model(self) -> Result<LlamaConfig, Error> {
        Ok(LlamaConfig {
            path: self.model,
            backends: self.backends,
            cells: self.pool,
            sequences: self.parallel,
            threads: self.threads,
            kernels: self.kernels,
            gpu_layers: self.gpu_layers,
            cache_types: (self.cache_type_k.parse()?, self.cache_type_v.parse()?),
            flash_attention: self.flash_attn.parse()?,
            rope_freq_base: self.rope_freq_base,
            rope_freq_scale: self.rope_freq_scale,
        })
    }
}

/// `GenerationOptions` of the stub: all generation options, checked.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub struct GenerationOptions {
    temperature: f32,
    top_k: i32,
    top_p: f32,
    min_p: f32,
    typical_p: f32,
    tail_free_sampling_z: f32,
    penalty_repetition: f32,
    penalty_frequency: f32,
    penalty_presence: f32,
    penalty_last_n: i32,
    mirostat: u8,
    mirostat_tau: f32,
    mirostat_eta: f32,
    seed: Option<u64>,
    tokens: u32,
    n_keep: u32,
    stop_regex: Vec<String>,
    stop: Vec<String>,
    ignore_eos: bool,
    max_time: f64,
}

impl GenerationOptions {
    pub fn request(self, prompt: Vec<Token>) -> Result<Request, Error> {
        Ok(Request {
            prompt,
            sampling: SamplingParams {
                temperature: self.temperature,
                top_k: self.top_k,
                top_p: self.top_p,
                min_p: self.min_p,
                typical_p: self.typical_p,
                tail_free_sampling_z: self.tail_free_sampling_z,
                penalty_repetition: self.penalty_repetition,
                penalty_frequency: self.penalty_frequency,
                penalty_presence: self.penalty_presence,
                penalty_last_n: self.penalty_last_n,
                mirostat: self.mirostat,
                mirostat_tau: self.mirostat_tau,
                mirostat_eta: self.mirostat_eta,
                seed: self.seed,
            },
            stop: StopRules::compile(&self.stop_regex, &self.stop)?,
            max_tokens: (self.tokens > 0).then_some(self.tokens),
            max_time: Duration::try_from_secs_f64(self.max_time)
                .ok()
                .filter(|time| !time.is_zero()),
            ignore_eos: self.ignore_eos,
            n_keep: self.n_keep,
        })
    }
}

/// A prompt: pairs of text and whether it is data.
pub fn spans(prompt: Vec<(String, bool)>) -> Vec<Span> {
    let span = |(text, is_data)| Span { text, is_data };
    prompt.into_iter().map(span).collect()
}

/// `End` of the stub: finish reason, error, prompt, cached and completion
/// tokens, seconds in the queue, in the prompt and in the reply, pauses.
type PyEnd = (
    &'static str,
    Option<String>,
    u32,
    u32,
    u32,
    f64,
    f64,
    f64,
    u32,
);

/// `Event` of the stub: id, text to append, the end if it is the last.
pub type PyEvent = (u64, String, Option<PyEnd>);

pub fn event(event: Event) -> PyEvent {
    match event.kind {
        EventKind::Delta(text) => (event.id, text, None),
        EventKind::End { reason, usage } => {
            let (reason, error) = match reason {
                FinishReason::Stop => ("stop", None),
                FinishReason::Length => ("length", None),
                FinishReason::StopRegex => ("stopRegex", None),
                FinishReason::Cancelled => ("cancelled", None),
                FinishReason::Error(error) => ("error", Some(error.to_string())),
            };
            let end = (
                reason,
                error,
                usage.prompt_tokens,
                usage.cached_tokens,
                usage.completion_tokens,
                usage.queue_time.as_secs_f64(),
                usage.prefill_time.as_secs_f64(),
                usage.decode_time.as_secs_f64(),
                usage.pauses,
            );
            (event.id, String::new(), Some(end))
        }
    }
}

/// `Histogram` of the stub: bounds in seconds with how many are not over them,
/// how many there are, their sum in seconds.
pub fn histogram<const N: usize>(histogram: &Histogram<N>) -> (Vec<(f64, u64)>, u64, f64) {
    let sum = histogram.sum.as_secs_f64();
    (histogram.cumulative().collect(), histogram.count, sum)
}
