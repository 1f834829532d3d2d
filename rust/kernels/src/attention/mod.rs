//! Attention over a cache of keys and values: what ggml's
//! `GGML_OP_FLASH_ATTN_EXT` computes.
//!
//! For each query row and head: `out = softmax(scale * q k + mask) v` over the
//! cells of the cache, with a soft cap of the logits, ALiBi slopes and sinks
//! where asked for. All arithmetic is f32 (ggml's own kernel rounds the query
//! to the type of the keys, and for F16 values the sums to F16 as well).
//!
//! Cells that a mask hides cost next to nothing. Rows of one sequence (a
//! prompt) are computed as a tile; others (one token each of several sequences
//! in one pool) one by one, with all query heads of a key head at a time.
//!
//! The bits of a result do not depend on the [`Tier`], on the number of
//! threads, or on the rows it shares a tile with; a row computed alone and the
//! same row in a tile differ by rounding.

mod cache;
mod cells;
mod math;
mod memory;
mod node;
mod plan;
mod row;
mod run;
mod share;
mod tile;

use crate::dispatch::Tier;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512};
use crate::simd::{Portable, Simd};
use node::Node;
pub use run::Inputs;
use share::{Share, Thread};

/// How a cache stores its values.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(non_camel_case_types)]
pub enum CacheType {
    /// Half precision floats.
    F16,
    /// ggml's Q8_0: blocks of 32 signed bytes behind their F16 scale.
    Q8_0,
}

/// Bytes from one element of a dimension to the next; within a row elements
/// are adjacent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Strides {
    /// From one token (of queries, results, masks) or cell (of keys, values)
    /// to the next.
    pub row: usize,
    /// From one head to the next; 0 in a mask, which all heads share.
    pub head: usize,
    /// From one stream to the next; 0 for a mask that all streams share.
    pub stream: usize,
}

/// Sizes and parameters of an attention node.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Shape {
    /// Type of the keys.
    pub key_type: CacheType,
    /// Type of the values.
    pub value_type: CacheType,
    /// Length of a query and of a key: a multiple of 32.
    pub key_dim: usize,
    /// Length of a value and of a result: a multiple of 32.
    pub value_dim: usize,
    /// Query heads: a multiple of `kv_heads`.
    pub heads: usize,
    /// Heads of the cache; each serves `heads / kv_heads` adjacent query heads.
    pub kv_heads: usize,
    /// Query rows of a stream (ggml's `ne[1]` of q).
    pub tokens: usize,
    /// Cells of a stream's cache (ggml's `ne[1]` of k).
    pub cells: usize,
    /// Independent sets of all tensors (ggml's `ne[3]`, the same for all
    /// tensors but a shared mask).
    pub streams: usize,
    /// Of the queries: f32 `[key_dim]` for each token, head and stream.
    pub query: Strides,
    /// Of the keys.
    pub key: Strides,
    /// Of the values.
    pub value: Strides,
    /// Of the results: f32 `[value_dim]` for each token, head and stream.
    /// (ggml's are `[value_dim, heads, tokens, streams]`, without gaps.)
    pub output: Strides,
    /// Of the mask, if there is one: F16 `[cells]` for each token and stream.
    pub mask: Option<Strides>,
    /// What dot products are multiplied by.
    pub scale: f32,
    /// If not 0, logits x become `soft_cap * tanh(x / soft_cap)`.
    pub soft_cap: f32,
    /// If greater than 0, the mask is multiplied by the head's ALiBi slope.
    pub max_bias: f32,
}

/// An attention node that this CPU has kernels for.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Attention {
    tier: Tier,
    shape: Shape,
}

/// Where the tensors of a node begin.
#[derive(Clone, Copy, Debug)]
pub struct Tensors {
    /// Queries.
    pub query: *const f32,
    /// Keys.
    pub key: *const u8,
    /// Values.
    pub value: *const u8,
    /// Mask (the bits of its F16); read only if the shape has one.
    pub mask: *const u16,
    /// A sink logit for each head, or null.
    pub sinks: *const f32,
    /// Results.
    pub output: *mut f32,
}

impl Attention {
    /// The kernels for a node of this shape; `None` if it is to be left to
    /// llama.cpp.
    ///
    /// # Panics
    /// If the CPU does not have the tier.
    pub fn new(tier: Tier, shape: Shape) -> Option<Attention> {
        assert!(tier.is_available());
        let sizes = [
            shape.key_dim,
            shape.value_dim,
            shape.heads,
            shape.kv_heads,
            shape.tokens,
            shape.cells,
            shape.streams,
        ];
        let strides = [Some(shape.query), Some(shape.key), Some(shape.value)];
        let strides = strides
            .into_iter()
            .chain([Some(shape.output), shape.mask])
            .flatten();
        let aligned = |strides: &Strides, bytes: usize| {
            [strides.row, strides.head, strides.stream]
                .iter()
                .all(|x| x.is_multiple_of(bytes))
        };
        let is_supported = sizes.iter().all(|&size| size > 0 && size <= MAX_SIZE)
            && strides
                .into_iter()
                .all(|x| x.row.max(x.head).max(x.stream) <= MAX_STRIDE)
            && shape.key_dim.is_multiple_of(32)
            && shape.value_dim.is_multiple_of(32)
            && shape.heads.is_multiple_of(shape.kv_heads)
            && aligned(&shape.query, 4)
            && aligned(&shape.output, 4)
            && shape
                .mask
                .is_none_or(|mask| aligned(&mask, 2) && mask.head == 0);
        is_supported.then_some(Attention { tier, shape })
    }

    /// Bytes of memory that `threads` threads need between them for a run.
    pub fn scratch(&self, threads: usize) -> usize {
        memory::scratch(&self.shape, threads)
    }

    /// Alignment of that memory.
    pub const SCRATCH_ALIGN: usize = 64;

    /// Whether a run by that many threads ends with [`merge`](Self::merge).
    pub fn is_split(&self, threads: usize) -> bool {
        plan::is_split(&self.shape, threads)
    }

    /// The share of thread `thread` of `threads`. All of them must run it, at
    /// the same time or in any order.
    ///
    /// # Safety
    /// - The tensors are valid for the elements that the shape describes, q
    ///   and the results aligned to 4 bytes, the mask to 2, and nobody writes
    ///   to them meanwhile (but the other threads of the same run).
    /// - `scratch` is aligned to [`SCRATCH_ALIGN`](Self::SCRATCH_ALIGN), holds
    ///   [`scratch`](Self::scratch)`(threads)` initialized bytes, is the same
    ///   for all threads of the run, and nobody else uses it until the run is
    ///   over.
    pub unsafe fn compute(
        &self,
        tensors: &Tensors,
        scratch: *mut u8,
        thread: usize,
        threads: usize,
    ) {
        // SAFETY: forwarded.
        unsafe { self.share(Part::Compute, tensors, scratch, thread, threads) }
    }

    /// Second part of a thread's share if [`is_split`](Self::is_split).
    ///
    /// # Safety
    /// As for [`compute`](Self::compute), which has returned, with the same
    /// arguments, on all threads.
    pub unsafe fn merge(&self, tensors: &Tensors, scratch: *mut u8, thread: usize, threads: usize) {
        // SAFETY: forwarded.
        unsafe { self.share(Part::Merge, tensors, scratch, thread, threads) }
    }

    /// # Safety
    /// As for [`compute`](Self::compute) or [`merge`](Self::merge).
    unsafe fn share(
        &self,
        part: Part,
        tensors: &Tensors,
        scratch: *mut u8,
        thread: usize,
        threads: usize,
    ) {
        assert!(thread < threads);
        let node = Node {
            shape: &self.shape,
            tensors,
        };
        let thread = Thread {
            index: thread,
            of: threads,
        };
        match self.tier {
            // SAFETY: forwarded; the tier is available and implies the instructions.
            #[cfg(target_arch = "x86_64")]
            Tier::Avx512Vnni => unsafe { run(Avx512::new(), part, node, scratch, thread) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Tier::AvxVnni | Tier::Avx2 => unsafe { run(Avx2::new(), part, node, scratch, thread) },
            // SAFETY: forwarded.
            _ => unsafe { run(Portable, part, node, scratch, thread) },
        }
    }
}

/// Which part of a thread's share is computed.
#[derive(Clone, Copy)]
enum Part {
    Compute,
    Merge,
}

/// # Safety
/// As for [`Attention::compute`] or [`Attention::merge`].
unsafe fn run<S: Simd>(simd: S, part: Part, node: Node, scratch: *mut u8, thread: Thread) {
    // SAFETY: forwarded.
    unsafe {
        let mut share = Share::new(simd, node, scratch, thread);
        match part {
            Part::Compute => share.compute(),
            Part::Merge => share.merge(),
        }
    }
}

/// Larger sizes and strides are not met with; their products would overflow.
const MAX_SIZE: usize = 1 << 24;
const MAX_STRIDE: usize = 1 << 38;
