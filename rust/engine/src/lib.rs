//! Continuous-batching inference on llama.cpp, with no Python in it.
//!
//! [`Engine`] owns one thread, and that thread owns the model. Callers submit
//! a [`Request`] and drain [`Event`]s; everything between is in the rooms
//! below, each testable alone.

pub mod engine;
pub mod error;
pub mod lookup;
pub mod model;
pub mod prefix;
pub mod request;
pub mod sampler;
pub mod scheduler;
pub mod stop;
pub mod text;

pub use engine::{Config, Engine, Histogram, Measures, State, Stats};
pub use error::Error;
pub use request::{Event, EventKind, FinishReason, Request, RequestId, Usage};
