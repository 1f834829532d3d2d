//! Attention: ggml's FLASH_ATTN_EXT.

use llama_cpp_sys_2 as sys;

use super::bindings::Tensor;
use super::tensor::{is_plain, source};
use super::workspace::Workspace;
use crate::attention::{Attention, CacheType, Shape, Strides, Tensors};
use crate::dispatch::Tier;

/// An attention node that we compute.
pub(super) struct AttentionNode {
    attention: Attention,
    tensors: Tensors,
}

impl AttentionNode {
    /// `None`: ggml computes this node.
    pub fn new(tier: Tier, op: &Tensor) -> Option<AttentionNode> {
        if op.op != sys::GGML_OP_FLASH_ATTN_EXT {
            return None;
        }
        let [query, key, value] = [source(op, 0)?, source(op, 1)?, source(op, 2)?];
        let (mask, sinks) = (source(op, 3), source(op, 4));
        let [key_dim, tokens, heads, streams] = sizes(query);
        let [_, cells, kv_heads, _] = sizes(key);
        let value_dim = sizes(value)[0];
        let is_f32 = |tensor: &Tensor| tensor.type_ == sys::GGML_TYPE_F32 && tensor.nb[0] == 4;
        let fits = is_f32(query)
            && is_f32(op)
            && sizes(key) == [key_dim, cells, kv_heads, streams]
            && sizes(value) == [value_dim, cells, kv_heads, streams]
            && sizes(op) == [value_dim, heads, tokens, streams]
            && mask.is_none_or(|mask| fits_mask(mask, [cells, tokens, streams]))
            && sinks.is_none_or(|sinks| is_f32(sinks) && sizes(sinks) == [heads, 1, 1, 1])
            && [Some(query), Some(key), Some(value), mask, sinks, Some(op)]
                .into_iter()
                .flatten()
                .all(is_plain);
        if !fits {
            return None;
        }
        let parameter = |index: usize| f32::from_bits(op.op_params[index] as u32);
        let shape = Shape {
            key_type: cache_type(key)?,
            value_type: cache_type(value)?,
            key_dim,
            value_dim,
            heads,
            kv_heads,
            tokens,
            cells,
            streams,
            query: strides(query),
            key: strides(key),
            value: strides(value),
            // Heads come before tokens here.
            output: Strides {
                row: op.nb[2],
                head: op.nb[1],
                stream: op.nb[3],
            },
            mask: mask.map(|mask| Strides {
                row: mask.nb[1],
                head: 0,
                stream: if mask.ne[3] == 1 { 0 } else { mask.nb[3] },
            }),
            scale: parameter(0),
            max_bias: parameter(1),
            soft_cap: parameter(2),
        };
        let data = |tensor: Option<&Tensor>| tensor.map_or(std::ptr::null_mut(), |t| t.data);
        Some(AttentionNode {
            attention: Attention::new(tier, shape)?,
            tensors: Tensors {
                query: query.data.cast(),
                key: key.data.cast(),
                value: value.data.cast(),
                mask: data(mask).cast(),
                sinks: data(sinks).cast(),
                output: op.data.cast(),
            },
        })
    }

    /// Makes room for up to `threads` threads; `None` if there is no memory.
    pub fn reserve(&self, workspace: &mut Workspace) -> Option<()> {
        // Fewer threads may need more than more do.
        let threads = 1..=workspace.threads();
        let bytes = threads.map(|threads| self.attention.scratch(threads)).max();
        workspace.reserve_shared(bytes.unwrap_or(0))
    }

    /// Computes the share of thread `thread` of `threads`.
    ///
    /// # Safety
    /// All tensors of the node have their memory; all threads call this, and
    /// `workspace`, which has room for it, is used by nobody else meanwhile.
    pub unsafe fn compute(&self, workspace: &Workspace, thread: usize, threads: usize) {
        // SAFETY: `new` has compared the shape with the tensors; `reserve` has
        // made aligned, zeroed room; the barrier parts the two steps.
        unsafe {
            let scratch = workspace.shared();
            self.attention
                .compute(&self.tensors, scratch, thread, threads);
            if self.attention.is_split(threads) {
                workspace.barrier.wait(threads);
                self.attention
                    .merge(&self.tensors, scratch, thread, threads);
            }
        }
    }
}

fn sizes(tensor: &Tensor) -> [usize; 4] {
    tensor.ne.map(|n| n as usize)
}

fn strides(tensor: &Tensor) -> Strides {
    let [_, row, head, stream] = tensor.nb;
    Strides { row, head, stream }
}

fn cache_type(tensor: &Tensor) -> Option<CacheType> {
    match (tensor.type_, tensor.nb[0]) {
        (sys::GGML_TYPE_F16, 2) => Some(CacheType::F16),
        (sys::GGML_TYPE_Q8_0, 34) => Some(CacheType::Q8_0),
        _ => None,
    }
}

/// A mask may have more rows than there are tokens.
fn fits_mask(mask: &Tensor, [cells, tokens, streams]: [usize; 3]) -> bool {
    let [columns, rows, heads, mask_streams] = sizes(mask);
    mask.type_ == sys::GGML_TYPE_F16
        && mask.nb[0] == 2
        && columns == cells
        && rows >= tokens
        && heads == 1
        && (mask_streams == 1 || mask_streams == streams)
}
