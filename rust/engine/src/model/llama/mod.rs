//! llama.cpp behind the traits of [`crate::model`]: nothing outside this
//! folder names it.
//!
//! `backend.rs` loads ggml's backends and keeps what llama.cpp logs,
//! `weights.rs` the model file, `pages.rs` where it lies in memory, `memory.rs`
//! how much of that there is, `guard.rs` outlives a file that crashes it,
//! `vocab.rs` is the tokenizer, `stack.rs` what its recursion needs,
//! `context.rs` the context, `cache.rs` the types of its memory, `drafts.rs`
//! whether rows may be computed ahead, `threads.rs` those who compute.

mod backend;
mod cache;
mod context;
mod drafts;
mod guard;
mod memory;
mod pages;
mod stack;
mod threads;
mod vocab;
mod weights;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::available_parallelism;

use crate::Error;
use crate::model::loading::Loading;
use crate::model::{Loader, Model, Vocab};

pub use backend::{Backends, GGML_VERSION, backends, check_version, llama_version};
pub use cache::{CacheType, FlashAttention};
pub use guard::end_on_crash;

/// GGML_MAX_N_THREADS.
const MAX_THREADS: usize = 512;

/// What to load and how.
#[derive(Debug, Clone)]
pub struct LlamaConfig {
    /// A GGUF file.
    pub path: PathBuf,
    /// The folder with ggml's backends. Read once a process: the first engine
    /// decides.
    pub backends: PathBuf,
    /// Cells of the pool; llama.cpp rounds up to a multiple of 256.
    pub cells: u32,
    /// Sequences that can be decoded at once.
    pub sequences: u32,
    /// Threads that compute; 0: as many as this process may use cores.
    pub threads: u32,
    /// Whether our own CPU kernels are used where there are some.
    pub kernels: bool,
    /// Layers on an accelerator; negative: all.
    pub gpu_layers: i32,
    /// What keys are stored as in the context memory, and what values are.
    pub cache_types: (CacheType, CacheType),
    pub flash_attention: FlashAttention,
    /// 0: what the GGUF says.
    pub rope_freq_base: f32,
    /// 0: what the GGUF says.
    pub rope_freq_scale: f32,
}

impl LlamaConfig {
    fn threads(&self) -> i32 {
        let threads = match self.threads {
            0 => available_parallelism().map_or(1, usize::from),
            threads => threads as usize,
        };
        threads.min(MAX_THREADS) as i32
    }
}

/// Loads a GGUF file.
#[derive(Debug)]
pub struct LlamaLoader {
    config: LlamaConfig,
    loading: Arc<Loading>,
    weights: Option<Arc<weights::Weights>>,
}

impl LlamaLoader {
    /// Loads nothing yet.
    pub fn new(config: LlamaConfig) -> Self {
        Self::watched(config, Arc::default())
    }

    /// The same, for those who watch it load.
    pub fn watched(config: LlamaConfig, loading: Arc<Loading>) -> Self {
        Self {
            config,
            loading,
            weights: None,
        }
    }
}

impl Loader for LlamaLoader {
    fn load(&mut self) -> Result<Arc<dyn Vocab>, Error> {
        backend::load(&self.config.backends)?;
        let _guard = guard::Guard::watch(&self.config.path);
        let weights = Arc::new(weights::Weights::load(&self.config, &self.loading)?);
        self.weights = Some(Arc::clone(&weights));
        Ok(Arc::new(vocab::LlamaVocab::new(weights)?))
    }

    fn with_model(&mut self, serve: &mut dyn FnMut(&mut dyn Model)) -> Result<(), Error> {
        let weights = self.weights.as_ref().ok_or(Error::Closed)?;
        if self.loading.is_cancelled() {
            return Err(Error::Closed);
        }
        let guard = guard::Guard::watch(&self.config.path);
        let mut model = context::LlamaModel::new(Arc::clone(weights), &self.config)?;
        drop(guard);
        serve(&mut model);
        Ok(())
    }
}
