//! Faults on order: a model that fails where it is told to, to see what becomes
//! of its requests.

use std::str::FromStr;
use std::sync::Arc;
use std::{env, fmt};

use super::{DecodeError, Loader, Model, ModelInfo, Row, SeqId, Vocab};
use crate::Error;
use crate::lookup::Terms;

/// The variable that [`Fault::from_env`] reads.
pub const VARIABLE: &str = "LLM_API_FAULT";

/// What goes wrong once, and at which time since the start, counted from 1.
/// Written `decode:N`, `panic:N`, `context:N` or `kernels`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The decode fails; its sequences must be removed.
    Decode(u64),
    /// The decode panics.
    Panic(u64),
    /// No context can be made; the first one belongs to the load.
    Context(u64),
    /// The self-test of our CPU kernels finds a difference.
    Kernels,
}

impl Fault {
    /// The faults that the environment orders, with commas between them.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the variable cannot be understood.
    pub fn from_env() -> Result<Vec<Self>, Error> {
        match env::var_os(VARIABLE) {
            None => Ok(Vec::new()),
            Some(text) => text.to_string_lossy().split(',').map(str::parse).collect(),
        }
    }
}

impl FromStr for Fault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text == "kernels" {
            return Ok(Self::Kernels);
        }
        let parsed = text.split_once(':').and_then(|(kind, nth)| {
            let nth = nth.parse().ok().filter(|&nth| nth > 0)?;
            match kind {
                "decode" => Some(Self::Decode(nth)),
                "panic" => Some(Self::Panic(nth)),
                "context" => Some(Self::Context(nth)),
                _ => None,
            }
        });
        parsed.ok_or_else(|| {
            Error::Unsupported(format!(
                "{VARIABLE} has {text:?}, not decode:N, panic:N, context:N or kernels"
            ))
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decode(nth) => write!(f, "decode:{nth}"),
            Self::Panic(nth) => write!(f, "panic:{nth}"),
            Self::Context(nth) => write!(f, "context:{nth}"),
            Self::Kernels => f.write_str("kernels"),
        }
    }
}

/// A loader whose model has faults, or none.
#[derive(Debug)]
pub struct Faulty<L> {
    loader: L,
    faults: Vec<Fault>,
    /// Contexts so far.
    contexts: u64,
    /// Decodes so far, over all contexts: a fault comes once.
    decodes: u64,
}

impl<L: Loader> Faulty<L> {
    /// The decode to fail is counted from here, over all contexts.
    pub fn new(loader: L, faults: impl IntoIterator<Item = Fault>) -> Self {
        Self {
            loader,
            faults: faults.into_iter().collect(),
            contexts: 0,
            decodes: 0,
        }
    }
}

impl<L: Loader> Loader for Faulty<L> {
    fn load(&mut self) -> Result<Arc<dyn Vocab>, Error> {
        self.loader.load()
    }

    fn with_model(&mut self, serve: &mut dyn FnMut(&mut dyn Model)) -> Result<(), Error> {
        if self.faults.is_empty() {
            return self.loader.with_model(serve);
        }
        self.contexts += 1;
        let fault = Fault::Context(self.contexts);
        if self.faults.contains(&fault) {
            return Err(Error::ModelLoad(format!("{VARIABLE}={fault}")));
        }
        let (faults, decodes) = (&self.faults, &mut self.decodes);
        self.loader.with_model(&mut |model| {
            serve(&mut FaultyModel {
                model,
                faults,
                decodes,
            })
        })
    }
}

struct FaultyModel<'a> {
    model: &'a mut dyn Model,
    faults: &'a [Fault],
    decodes: &'a mut u64,
}

impl Model for FaultyModel<'_> {
    fn info(&self) -> &ModelInfo {
        self.model.info()
    }

    fn drafts(&self) -> Terms {
        self.model.drafts()
    }

    fn decode(&mut self, rows: &[Row]) -> Result<(), DecodeError> {
        *self.decodes += 1;
        let (failed, panic) = (Fault::Decode(*self.decodes), Fault::Panic(*self.decodes));
        assert!(!self.faults.contains(&panic), "{VARIABLE}={panic}");
        if self.faults.contains(&failed) {
            return Err(DecodeError::Failed(format!("{VARIABLE}={failed}")));
        }
        self.model.decode(rows)
    }

    fn logits(&self, row: usize) -> &[f32] {
        self.model.logits(row)
    }

    fn remove(&mut self, sequence: SeqId, from: i32, to: i32) -> bool {
        self.model.remove(sequence, from, to)
    }

    fn shift(&mut self, sequence: SeqId, from: i32, to: i32, delta: i32) {
        self.model.shift(sequence, from, to, delta);
    }

    fn copy(&mut self, from: SeqId, to: SeqId, begin: i32, end: i32) {
        self.model.copy(from, to, begin, end);
    }

    fn intact(&self, sequence: SeqId, len: i32) -> bool {
        self.model.intact(sequence, len)
    }
}
