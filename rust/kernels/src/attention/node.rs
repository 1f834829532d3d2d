//! Where the parts of a node are in memory, and what a head's numbers are.

use std::ops::Range;

use super::{Shape, Strides, Tensors};
use crate::simd::LANES;

/// Query heads of one key head that are computed together, at most.
pub(super) const MAX_HEADS: usize = 8;

/// Tokens of a tile, at most.
pub(super) const MAX_TOKENS: usize = 4 * LANES;

/// A node at work.
#[derive(Clone, Copy)]
pub(super) struct Node<'a> {
    pub shape: &'a Shape,
    pub tensors: &'a Tensors,
}

/// Query heads that share a key head.
#[derive(Clone, Copy)]
pub(super) struct Group {
    pub kv_head: usize,
    /// First of the heads.
    pub first: usize,
    /// At most [`MAX_HEADS`].
    pub count: usize,
}

impl Shape {
    /// Groups per key head.
    fn groups_per_kv_head(&self) -> usize {
        (self.heads / self.kv_heads).div_ceil(MAX_HEADS)
    }

    /// Number of groups.
    pub(super) fn groups(&self) -> usize {
        self.kv_heads * self.groups_per_kv_head()
    }

    /// Group number `index`.
    pub(super) fn group(&self, index: usize) -> Group {
        let heads = self.heads / self.kv_heads;
        let kv_head = index / self.groups_per_kv_head();
        let start = index % self.groups_per_kv_head() * MAX_HEADS;
        Group {
            kv_head,
            first: kv_head * heads + start,
            count: MAX_HEADS.min(heads - start),
        }
    }

    /// Heads of the largest group.
    pub(super) fn group_heads(&self) -> usize {
        MAX_HEADS.min(self.heads / self.kv_heads)
    }

    /// Query rows of all streams; row `stream * tokens + token`.
    pub(super) fn rows(&self) -> usize {
        self.tokens * self.streams
    }

    /// Tokens that are computed as one tile: enough for the vectors of a tile
    /// to fill the registers, if there are as many.
    pub(super) fn tile_tokens(&self) -> usize {
        let vectors = MAX_TOKENS / LANES / self.group_heads();
        LANES * vectors.min(self.tokens.div_ceil(LANES)).max(1)
    }

    /// Number of tiles; a tile does not reach into the next stream.
    pub(super) fn tiles(&self) -> usize {
        self.streams * self.tokens.div_ceil(self.tile_tokens())
    }

    /// Rows of a tile.
    pub(super) fn tile(&self, index: usize) -> Range<usize> {
        let per_stream = self.tokens.div_ceil(self.tile_tokens());
        let (stream, tile) = (index / per_stream, index % per_stream);
        let start = tile * self.tile_tokens();
        let end = self.tokens.min(start + self.tile_tokens());
        stream * self.tokens + start..stream * self.tokens + end
    }

    /// What products are multiplied by before the soft cap.
    pub(super) fn score_scale(&self) -> f32 {
        if self.soft_cap == 0.0 {
            self.scale
        } else {
            self.scale / self.soft_cap
        }
    }

    /// The ALiBi slope of a head.
    pub(super) fn slope(&self, head: usize) -> f32 {
        if self.max_bias <= 0.0 {
            return 1.0;
        }
        let power = 1 << self.heads.ilog2();
        let base = |bias: f32| (-bias / power as f32).exp2();
        if head < power {
            base(self.max_bias).powi(head as i32 + 1)
        } else {
            base(self.max_bias / 2.0).powi(2 * (head - power) as i32 + 1)
        }
    }
}

impl Strides {
    fn offset(&self, row: usize, head: usize, stream: usize) -> usize {
        row * self.row + head * self.head + stream * self.stream
    }
}

// Addresses only: whoever uses them proves that they are within the tensors.
impl Node<'_> {
    fn split(&self, row: usize) -> (usize, usize) {
        (row % self.shape.tokens, row / self.shape.tokens)
    }

    pub(super) fn stream(&self, row: usize) -> usize {
        row / self.shape.tokens
    }

    pub(super) fn query(&self, row: usize, head: usize) -> *const f32 {
        let (token, stream) = self.split(row);
        self.tensors
            .query
            .wrapping_byte_add(self.shape.query.offset(token, head, stream))
    }

    pub(super) fn output(&self, row: usize, head: usize) -> *mut f32 {
        let (token, stream) = self.split(row);
        self.tensors
            .output
            .wrapping_byte_add(self.shape.output.offset(token, head, stream))
    }

    pub(super) fn mask(&self, row: usize) -> Option<*const u16> {
        let (token, stream) = self.split(row);
        let offset = self.shape.mask?.offset(token, 0, stream);
        Some(self.tensors.mask.wrapping_byte_add(offset))
    }

    /// The key of cell 0.
    pub(super) fn keys(&self, kv_head: usize, stream: usize) -> *const u8 {
        self.tensors
            .key
            .wrapping_add(self.shape.key.offset(0, kv_head, stream))
    }

    /// The value of cell 0.
    pub(super) fn values(&self, kv_head: usize, stream: usize) -> *const u8 {
        self.tensors
            .value
            .wrapping_add(self.shape.value.offset(0, kv_head, stream))
    }

    /// # Safety
    /// The tensors are valid and `head` is a query head.
    pub(super) unsafe fn sink(&self, head: usize) -> Option<f32> {
        // SAFETY: there is one for each head.
        (!self.tensors.sinks.is_null()).then(|| unsafe { *self.tensors.sinks.add(head) })
    }
}
