//! A valid request, and the events that answer it.

use std::time::Duration;

use crate::model::Token;
use crate::sampler::SamplingParams;
use crate::stop::StopRules;

/// Names a request for as long as the engine lives; never used twice.
pub type RequestId = u64;

/// What one caller wants. Ranges have been checked by whoever built it.
#[derive(Debug, Clone)]
pub struct Request {
    /// At least one token; at most the context's size minus one.
    pub prompt: Vec<Token>,
    pub sampling: SamplingParams,
    pub stop: StopRules,
    /// Tokens to generate at most; `None`: until the context is full.
    pub max_tokens: Option<u32>,
    /// Time from submission at most; over it, the reply ends as `Length`.
    pub max_time: Option<Duration>,
    /// Never sample an end-of-generation token.
    pub ignore_eos: bool,
    /// Prompt tokens kept when the context is shifted; 0: never shift.
    pub n_keep: u32,
}

/// One thing that happened to a request. After `End` there is nothing more.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    pub id: RequestId,
    pub kind: EventKind,
}

#[derive(Debug, Clone, PartialEq)]
pub enum EventKind {
    /// Text to append to the reply; never empty, whole characters only.
    Delta(String),
    End {
        reason: FinishReason,
        usage: Usage,
    },
}

/// Why a reply ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it (end-of-generation token).
    Stop,
    /// A limit: tokens, context or time.
    Length,
    /// A stop regex or a literal stop matched.
    StopRegex,
    /// [`crate::Engine::cancel`], or the engine was closed, or the caller let
    /// more than 1 MiB of the reply pile up undrained.
    Cancelled,
    /// The reply is broken and must not be taken for a whole one.
    Error(crate::Error),
}

/// What a request used.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Of these, the ones whose cells were reused instead of computed.
    pub cached_tokens: u32,
    /// Tokens sampled, the end-of-generation token not counted.
    pub completion_tokens: u32,
    /// From submission to the first prompt piece.
    pub queue_time: Duration,
    /// From there to the first sampled token.
    pub prefill_time: Duration,
    /// From there to the end.
    pub decode_time: Duration,
    /// How often the request was paused because the pool was full.
    pub pauses: u32,
}
