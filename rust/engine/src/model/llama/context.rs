//! A context: the pool of cells, the batch and the threads that compute.

use std::ptr::{NonNull, null_mut};
use std::sync::Arc;
use std::time::Instant;

use llama_cpp_sys_2 as sys;
use llm_kernels::ggml::take_left;

use super::backend::{clear_log, logged};
use super::drafts::{Proofs, are_provable, terms};
use super::threads::{Crew, ThreadPool, process_time};
use super::weights::Weights;
use super::{LlamaConfig, memory};
use crate::Error;
use crate::lookup::Terms;
use crate::model::{DecodeError, Model, ModelInfo, Reuse, Row, SeqId, Token};

/// Rows of one decode, which llama.cpp computes in one pass. A cancel waits for
/// the decode it comes in, and more rows give little speed on a CPU.
const BATCH: u32 = 256;

/// Cells that a sequence gets together (`rust/engine/llama/placing.h`).
const BLOCK: usize = 64;

/// Sequences that only keep what may be used again, where they cost little:
/// llama.cpp holds a row of logits for each.
const SPARE_SEQUENCES: u32 = 16;

/// Sequences that llama.cpp can tell apart.
const MAX_SEQUENCES: u32 = 256;

#[derive(Debug)]
pub(super) struct LlamaModel {
    info: ModelInfo,
    n_tokens: usize,
    /// Tokens that some layers look back on; 0: all layers see all.
    window: i32,
    batch: Batch,
    crew: Crew,
    proofs: Proofs,
    /// Logits of the last decode's rows, where each was computed alone.
    alone: Vec<Vec<f32>>,
    // Dropped in this order: the context uses the pool and the weights.
    context: Context,
    _threads: ThreadPool,
    _weights: Arc<Weights>,
}

impl LlamaModel {
    pub(super) fn new(weights: Arc<Weights>, config: &LlamaConfig) -> Result<Self, Error> {
        let context = Context::new(&weights, config)?;
        let threads = ThreadPool::new(config.threads())?;
        // SAFETY: both are valid, and the context is dropped first.
        unsafe { threads.attach(context.0.as_ptr()) };
        let model = weights.as_ptr();
        let memory = context.memory();
        if memory.is_null() {
            return Err(Error::Unsupported(
                "the model keeps no context: it cannot generate text".into(),
            ));
        }
        let (stateful, window) = (weights.is_stateful(), weights.window());
        let drafts = terms(&weights, config);
        // SAFETY: context, memory and model are valid; these only read.
        let (cells, shifts, n_tokens) = unsafe {
            (
                sys::llama_n_ctx(context.0.as_ptr()),
                sys::llama_memory_can_shift(memory),
                sys::llama_vocab_n_tokens(sys::llama_model_get_vocab(model)),
            )
        };
        Ok(Self {
            info: ModelInfo {
                description: weights.description(),
                kernels: weights.kernels().clone(),
                threads: config.threads() as usize,
                cells: cells as usize,
                block: BLOCK,
                sequences: config.sequences as usize,
                spare_sequences: spare_sequences(&weights, config) as usize,
                batch: BATCH as usize,
                trained_context: weights.trained_context(),
                drafts,
                // Recurrent state has no positions that could be moved, though
                // llama.cpp says it does: a shift also drops a middle part.
                can_shift: shifts && !stateful,
                reuse: match (stateful, window) {
                    (true, _) => Reuse::Whole,
                    (false, 0) => Reuse::Any,
                    (false, _) => Reuse::Window,
                },
            },
            window,
            n_tokens: n_tokens as usize,
            batch: Batch::default(),
            proofs: Proofs::new(drafts, are_provable(&weights, config)),
            alone: Vec::new(),
            // Beside an accelerator, threads also wait without spinning.
            crew: Crew::new(if config.gpu_layers == 0 {
                config.threads()
            } else {
                1
            }),
            context,
            _threads: threads,
            _weights: weights,
        })
    }
}

impl LlamaModel {
    /// Decodes `rows`.
    fn compute(&mut self, rows: &[Row]) -> Result<(), DecodeError> {
        // llama.cpp aborts the process on more than it has room for.
        assert!(rows.len() <= self.info.batch);
        assert!(
            rows.iter().filter(|row| row.logits).count()
                <= self.info.sequences + self.info.drafts.longest()
        );
        let batch = self.batch.fill(rows);
        clear_log();
        take_left();
        let (begin, computed) = (Instant::now(), process_time());
        // SAFETY: the batch points into `self.batch`, which is not touched
        // until the call returns.
        let code = unsafe { sys::llama_decode(self.context.0.as_ptr(), batch) };
        let now = Instant::now();
        self.proofs.doubt(take_left());
        let threads = self.crew.note(now - begin, process_time() - computed, now);
        if let Some(threads) = threads {
            // SAFETY: the context is valid.
            unsafe { sys::llama_set_n_threads(self.context.0.as_ptr(), threads, threads) };
        }
        match code {
            0 => Ok(()),
            1 => Err(DecodeError::NoRoom),
            code => Err(DecodeError::Failed(
                logged().unwrap_or_else(|| format!("llama_decode returned {code}")),
            )),
        }
    }

    /// Computes the rows of a draft once more, one by one, and notes whether
    /// that makes a difference. What is left is what they were alone.
    fn prove(&mut self, rows: &[Row]) -> Result<(), DecodeError> {
        let together: Vec<_> = (0..rows.len())
            .map(|row| self.computed(row).to_vec())
            .collect();
        if !self.remove(rows[0].sequence, rows[0].position, -1) {
            return Err(DecodeError::Failed("a draft cannot be taken back".into()));
        }
        let mut alone = Vec::with_capacity(rows.len());
        for row in rows {
            self.compute(std::slice::from_ref(row))?;
            alone.push(self.computed(0).to_vec());
        }
        self.proofs.note(&together, &alone);
        self.alone = alone;
        Ok(())
    }

    /// What [`Self::compute`] made of a row that asked for its logits.
    fn computed(&self, row: usize) -> &[f32] {
        // SAFETY: an unknown row gives null; else there are `n_tokens` values,
        // valid until the next decode, which needs `&mut self`.
        unsafe {
            let logits = sys::llama_get_logits_ith(self.context.0.as_ptr(), row as i32);
            assert!(!logits.is_null(), "row {row} was decoded without logits");
            std::slice::from_raw_parts(logits, self.n_tokens)
        }
    }
}

impl Model for LlamaModel {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn drafts(&self) -> Terms {
        self.proofs.terms()
    }

    fn decode(&mut self, rows: &[Row]) -> Result<(), DecodeError> {
        self.alone.clear();
        self.compute(rows)?;
        if self.proofs.are_missing(rows) {
            self.prove(rows)?;
        }
        Ok(())
    }

    fn logits(&self, row: usize) -> &[f32] {
        match self.alone.get(row) {
            Some(logits) => logits,
            None => self.computed(row),
        }
    }

    fn remove(&mut self, sequence: SeqId, from: i32, to: i32) -> bool {
        // SAFETY: the memory belongs to the context.
        unsafe { sys::llama_memory_seq_rm(self.context.memory(), sequence, from, to) }
    }

    fn shift(&mut self, sequence: SeqId, from: i32, to: i32, delta: i32) {
        // llama.cpp aborts the process at the next decode otherwise.
        assert!(self.info.can_shift);
        // SAFETY: the memory belongs to the context.
        unsafe { sys::llama_memory_seq_add(self.context.memory(), sequence, from, to, delta) }
    }

    fn copy(&mut self, from: SeqId, to: SeqId, begin: i32, end: i32) {
        // SAFETY: the memory belongs to the context.
        unsafe { sys::llama_memory_seq_cp(self.context.memory(), from, to, begin, end) }
    }

    fn intact(&self, sequence: SeqId, len: i32) -> bool {
        let memory = self.context.memory();
        match self.info.reuse {
            Reuse::Any => true,
            // The layers with windows keep the positions from the first one
            // that any of them still has.
            // SAFETY: the memory belongs to the context; this only reads.
            Reuse::Window => unsafe {
                sys::llama_memory_seq_pos_min(memory, sequence) <= (len - self.window).max(0)
            },
            Reuse::Whole => false,
        }
    }
}

#[derive(Debug)]
struct Context(NonNull<sys::llama_context>);

impl Context {
    fn new(weights: &Weights, config: &LlamaConfig) -> Result<Self, Error> {
        check_memory(weights, config)?;
        // SAFETY: plain data without invariants.
        let mut params = unsafe { sys::llama_context_default_params() };
        params.n_ctx = config.cells;
        params.n_batch = BATCH;
        params.n_ubatch = BATCH;
        params.n_seq_max = config.sequences + spare_sequences(weights, config);
        // One row of logits a sequence, which is the least that llama.cpp
        // takes; the default keeps room for a row a token, half a gigabyte for
        // a large vocabulary.
        params.n_outputs_max = params.n_seq_max + terms(weights, config).longest() as u32;
        params.n_threads = config.threads();
        params.n_threads_batch = config.threads();
        params.rope_freq_base = config.rope_freq_base;
        params.rope_freq_scale = config.rope_freq_scale;
        (params.type_k, params.type_v) = (config.cache_types.0.0, config.cache_types.1.0);
        params.flash_attn_type = config.flash_attention.to_llama();
        params.kv_unified = true;
        // Sliding windows keep what they need and no more. Full-size caches
        // would let such models always shift and share any prefix, for several
        // times the memory.
        params.swa_full = false;
        params.no_perf = true;
        clear_log();
        // SAFETY: the model is valid, and the parameters hold no pointers.
        let context = unsafe { sys::llama_init_from_model(weights.as_ptr(), params) };
        NonNull::new(context).map(Self).ok_or_else(|| {
            let reason = logged().unwrap_or_else(|| "llama.cpp made no context".into());
            Error::ModelLoad(format!(
                "a context of {} cells for {} sequences: {reason}",
                config.cells, config.sequences
            ))
        })
    }

    fn memory(&self) -> sys::llama_memory_t {
        // SAFETY: the context is valid.
        unsafe { sys::llama_get_memory(self.0.as_ptr()) }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: owned by this alone.
        unsafe { sys::llama_free(self.0.as_ptr()) }
    }
}

/// How many sequences beyond those that run are worth their memory.
fn spare_sequences(weights: &Weights, config: &LlamaConfig) -> u32 {
    let window = weights.window() as u32;
    let spare = if weights.is_stateful() {
        // Each has a state of its own. Those that do not run are kept.
        0
    } else if window > 0 && config.cells > window * config.sequences + BATCH {
        // Each adds the cells of a window. Windows that two requests share and
        // both have left behind stay until one of them ends, so that without
        // these the running ones could find no room.
        config.sequences.div_ceil(2).min(SPARE_SEQUENCES)
    } else {
        SPARE_SEQUENCES
    };
    spare.min(MAX_SEQUENCES - config.sequences.min(MAX_SEQUENCES))
}

/// Refuses a pool that cannot fit into the memory of the machine: the kernel
/// may promise it all the same, and end the process when it is used.
fn check_memory(weights: &Weights, config: &LlamaConfig) -> Result<(), Error> {
    let needed = weights.bytes_per_cell(config.cache_types).unwrap_or(0) * u64::from(config.cells);
    match memory::total() {
        Some(total) if config.gpu_layers == 0 && needed > total => Err(Error::ModelLoad(format!(
            "a context of {} cells takes {} MiB, and the machine has {} MiB of memory: \
             use a smaller -context, -pool or -parallel",
            config.cells,
            needed >> 20,
            total >> 20
        ))),
        _ => Ok(()),
    }
}

/// The arrays of a `llama_batch`, kept between decodes.
#[derive(Debug, Default)]
struct Batch {
    tokens: Vec<Token>,
    positions: Vec<i32>,
    sequence_counts: Vec<i32>,
    sequences: Vec<SeqId>,
    sequence_pointers: Vec<*mut SeqId>,
    logits: Vec<i8>,
}

impl Batch {
    /// A batch that points into `self`, valid until the next call.
    fn fill(&mut self, rows: &[Row]) -> sys::llama_batch {
        fn refill<T>(column: &mut Vec<T>, values: impl Iterator<Item = T>) {
            column.clear();
            column.extend(values);
        }
        refill(&mut self.tokens, rows.iter().map(|row| row.token));
        refill(&mut self.positions, rows.iter().map(|row| row.position));
        refill(&mut self.sequence_counts, rows.iter().map(|_| 1));
        refill(&mut self.sequences, rows.iter().map(|row| row.sequence));
        refill(&mut self.logits, rows.iter().map(|row| row.logits.into()));
        let pointers = self.sequences.iter_mut().map(std::ptr::from_mut);
        refill(&mut self.sequence_pointers, pointers);
        sys::llama_batch {
            n_tokens: rows.len() as i32,
            token: self.tokens.as_mut_ptr(),
            embd: null_mut(),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.sequence_counts.as_mut_ptr(),
            seq_id: self.sequence_pointers.as_mut_ptr(),
            logits: self.logits.as_mut_ptr(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::BLOCK;

    #[test]
    fn blocks_are_as_long_as_the_cache_makes_them() {
        let header = include_str!("../../../llama/placing.h");
        assert!(header.contains(&format!("llm_api_block = {BLOCK};")));
    }
}
