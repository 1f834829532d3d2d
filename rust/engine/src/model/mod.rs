//! What the engine needs of a model, and who provides it: `llama.rs` with
//! llama.cpp, `fake.rs` from a script; `fault.rs` makes either of them fail.

pub mod fake;
pub mod fault;
#[cfg(feature = "llama")]
pub mod llama;
pub mod loading;

use std::sync::Arc;

use crate::Error;
use crate::lookup::Terms;

/// A token id, as llama.cpp has it.
pub type Token = i32;
/// A sequence id, below `ModelInfo::sequences` and `spare_sequences` together.
pub type SeqId = i32;

/// A stretch of a prompt. Control tokens are recognised in the template's own
/// text only; what a client sent as data never becomes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// Its text.
    pub text: String,
    /// Whether it came from a client.
    pub is_data: bool,
}

/// The vocabulary: read-only, shared by all threads.
pub trait Vocab: Send + Sync {
    /// Tokens there are, which is the length of a row of logits.
    fn n_tokens(&self) -> usize;
    /// Tokens of a prompt whose spans are one text. Merges cross span
    /// boundaries; only control tokens that lie wholly in spans with
    /// `is_data == false` are parsed as such. A BOS comes first if the model
    /// wants one, and is never doubled.
    fn tokenize(&self, prompt: &[Span]) -> Result<Vec<Token>, Error>;
    /// The bytes of a token, which need not be whole characters; nothing for
    /// control tokens. Appended to `out`.
    fn piece(&self, token: Token, out: &mut Vec<u8>);
    /// Whether a reply ends with this token.
    fn is_end_of_generation(&self, token: Token) -> bool;
    /// All end-of-generation tokens, for `ignore_eos`.
    fn end_of_generation(&self) -> &[Token];
    /// The token of a single newline, if there is one.
    fn newline(&self) -> Option<Token>;
    /// The chat template in the model's metadata, a Jinja source.
    fn chat_template(&self) -> Option<&str>;
    /// The text of BOS, for such templates; empty if there is none.
    fn bos_text(&self) -> &str;
    /// The same of EOS.
    fn eos_text(&self) -> &str;
}

/// Whether a model is computed with CPU kernels of our own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Kernels {
    /// Nobody asked for them.
    #[default]
    Off,
    /// They are; which tensors they have taken, for people.
    On(String),
    /// They cannot be used, and why.
    Failed(String),
}

/// Facts about a model and its context, fixed after loading.
#[derive(Debug, Clone)]
pub struct ModelInfo {
    /// Architecture, size and quantization, for people.
    pub description: String,
    /// Our own kernels.
    pub kernels: Kernels,
    /// Threads that compute, at least 1; between decodes they are idle.
    pub threads: usize,
    /// Cells of the pool shared by all sequences.
    pub cells: usize,
    /// Cells that a sequence gets together, where so many are free that begin at
    /// a multiple of them; at least 1. A draft has at most half as many tokens.
    pub block: usize,
    /// Sequences that can be decoded at once.
    pub sequences: usize,
    /// Sequences beside these, which only keep what may be used again.
    pub spare_sequences: usize,
    /// Tokens that one [`Model::decode`] takes.
    pub batch: usize,
    /// Tokens of context that the model was trained with; 0: not known.
    pub trained_context: usize,
    /// Drafts that it takes. Their rows' logits can be had beyond one for each
    /// sequence, and their cells can be freed again after the decode.
    pub drafts: Terms,
    /// Whether positions can be moved (context shift).
    pub can_shift: bool,
    /// How other requests may go on from cells of a sequence.
    pub reuse: Reuse,
}

/// What a sequence can be continued from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Any beginning of it, which others can share.
    Any,
    /// The same, but not where layers have dropped what slid out of their
    /// window: [`Model::intact`] tells.
    Window,
    /// All of it and nothing less: its state has no parts.
    Whole,
}

/// One token to decode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The token.
    pub token: Token,
    /// Its position, the next one of its sequence.
    pub position: i32,
    /// The sequence that it continues.
    pub sequence: SeqId,
    /// Whether its logits are wanted.
    pub logits: bool,
}

/// Why a decode failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecodeError {
    /// No room for the batch; nothing was changed, a smaller one may fit.
    NoRoom,
    /// The rows' sequences are in an unknown state and must be removed.
    Failed(String),
}

/// The model and its context, owned by the engine thread.
pub trait Model {
    /// Facts that never change.
    fn info(&self) -> &ModelInfo;
    /// The drafts that it takes by now: shorter ones than `info().drafts` says, and
    /// for fewer streams, where it turned out that others are not computed as
    /// single rows are.
    fn drafts(&self) -> Terms {
        self.info().drafts
    }
    /// Computes `rows` (at most `info().batch`).
    fn decode(&mut self, rows: &[Row]) -> Result<(), DecodeError>;
    /// Logits after row `row` of the last decode, which must have asked for
    /// them; `Vocab::n_tokens` values.
    fn logits(&self, row: usize) -> &[f32];
    /// Frees the cells of `sequence` at positions `from..to` (`to < 0`: to the
    /// end). False if the model can only remove whole sequences.
    fn remove(&mut self, sequence: SeqId, from: i32, to: i32) -> bool;
    /// Moves the positions `from..to` of `sequence` by `delta`.
    fn shift(&mut self, sequence: SeqId, from: i32, to: i32, delta: i32);
    /// Lets `to` share the cells of `from` at positions `begin..end`.
    fn copy(&mut self, from: SeqId, to: SeqId, begin: i32, end: i32);
    /// Whether nothing is missing of what a token at position `len` of
    /// `sequence` would look at.
    fn intact(&self, sequence: SeqId, len: i32) -> bool;
}

/// Loads a model on the engine thread and lends it to the engine's loop. The
/// context lives inside `with_model`, so it can borrow the weights, and can be
/// made again after a failure without loading them again.
pub trait Loader: Send + 'static {
    /// Loads the weights; slow.
    fn load(&mut self) -> Result<Arc<dyn Vocab>, Error>;
    /// Makes a context and calls `serve` once with it.
    fn with_model(&mut self, serve: &mut dyn FnMut(&mut dyn Model)) -> Result<(), Error>;
}
