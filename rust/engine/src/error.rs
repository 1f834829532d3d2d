//! The one error type of the engine.

use std::fmt;

/// Everything that can go wrong, each case with what a caller needs to say
/// what to change. Messages are for people; code matches on the variant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// The model cannot be used: missing, not GGUF, truncated, of an unknown
    /// architecture, too large for memory.
    ModelLoad(String),
    /// The model cannot do what the configuration or the request asks for.
    Unsupported(String),
    /// The prompt has more tokens than one request may use.
    PromptTooLong { tokens: usize, context: usize },
    /// The prompt has no token at all.
    PromptEmpty,
    /// A stop pattern does not compile or is too big; the parser's message.
    StopPattern { pattern: String, reason: String },
    /// The queue holds as many requests as it may.
    QueueFull { queue: usize },
    /// `llama_decode` failed.
    Decode(String),
    /// The engine thread panicked.
    Panicked(String),
    /// The engine is closed.
    Closed,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ModelLoad(reason) => write!(f, "the model cannot be loaded: {reason}"),
            Self::Unsupported(reason) => f.write_str(reason),
            Self::PromptTooLong { tokens, context } => write!(
                f,
                "the prompt has {tokens} tokens, but the context is {context}: \
                 shorten the prompt or start the server with a larger -context"
            ),
            Self::PromptEmpty => f.write_str("the prompt has no tokens"),
            Self::StopPattern { pattern, reason } => {
                write!(f, "the stop pattern {pattern:?} does not compile: {reason}")
            }
            Self::QueueFull { queue } => {
                write!(f, "the queue is full: {queue} requests are waiting")
            }
            Self::Decode(reason) => write!(f, "decoding failed: {reason}"),
            Self::Panicked(reason) => write!(f, "the engine thread panicked: {reason}"),
            Self::Closed => f.write_str("the engine is closed"),
        }
    }
}

impl std::error::Error for Error {}
