//! Faults on order: a model that fails once, to see what becomes of its
//! requests.

use std::str::FromStr;
use std::sync::Arc;
use std::{env, fmt};

use super::{DecodeError, Loader, Model, ModelInfo, Row, SeqId, Vocab};
use crate::Error;

/// The variable that [`Fault::from_env`] reads.
pub const VARIABLE: &str = "LLM_API_FAULT";

/// What goes wrong, and at which decode after the start, counted from 1.
/// Written `decode:N` or `panic:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The decode fails; its sequences must be removed.
    Decode(u64),
    /// The decode panics.
    Panic(u64),
}

impl Fault {
    /// The fault that the environment orders, if any.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the variable cannot be understood.
    pub fn from_env() -> Result<Option<Self>, Error> {
        match env::var_os(VARIABLE) {
            None => Ok(None),
            Some(text) => text.to_string_lossy().parse().map(Some),
        }
    }
}

impl FromStr for Fault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parsed = text.split_once(':').and_then(|(kind, nth)| {
            let nth = nth.parse().ok().filter(|&nth| nth > 0)?;
            match kind {
                "decode" => Some(Self::Decode(nth)),
                "panic" => Some(Self::Panic(nth)),
                _ => None,
            }
        });
        parsed.ok_or_else(|| {
            Error::Unsupported(format!("{VARIABLE} is {text:?}, not decode:N or panic:N"))
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decode(nth) => write!(f, "decode:{nth}"),
            Self::Panic(nth) => write!(f, "panic:{nth}"),
        }
    }
}

/// A loader whose model has a fault, or none.
#[derive(Debug)]
pub struct Faulty<L> {
    loader: L,
    fault: Option<Fault>,
    /// Decodes so far, over all contexts: a fault comes once.
    decodes: u64,
}

impl<L: Loader> Faulty<L> {
    /// The decode to fail is counted from here, over all contexts.
    pub fn new(loader: L, fault: Option<Fault>) -> Self {
        Self {
            loader,
            fault,
            decodes: 0,
        }
    }
}

impl<L: Loader> Loader for Faulty<L> {
    fn load(&mut self) -> Result<Arc<dyn Vocab>, Error> {
        self.loader.load()
    }

    fn with_model(&mut self, serve: &mut dyn FnMut(&mut dyn Model)) -> Result<(), Error> {
        let Some(fault) = self.fault else {
            return self.loader.with_model(serve);
        };
        let decodes = &mut self.decodes;
        self.loader.with_model(&mut |model| {
            serve(&mut FaultyModel {
                model,
                fault,
                decodes,
            })
        })
    }
}

struct FaultyModel<'a> {
    model: &'a mut dyn Model,
    fault: Fault,
    decodes: &'a mut u64,
}

impl Model for FaultyModel<'_> {
    fn info(&self) -> &ModelInfo {
        self.model.info()
    }

    fn decode(&mut self, rows: &[Row]) -> Result<(), DecodeError> {
        *self.decodes += 1;
        match self.fault {
            Fault::Decode(nth) if nth == *self.decodes => {
                Err(DecodeError::Failed(format!("{VARIABLE}={}", self.fault)))
            }
            Fault::Panic(nth) if nth == *self.decodes => panic!("{VARIABLE}={}", self.fault),
            _ => self.model.decode(rows),
        }
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
}
