//! Which tensors are packed, and how.

use llama_cpp_sys_2 as sys;

use super::bindings::Tensor;
use crate::dispatch::Tier;
use crate::matmul::{Layout, WeightType};

/// How a weight tensor is packed: a matrix, or one for each expert.
#[derive(Clone, Copy)]
pub(super) struct Packing {
    /// Of each matrix.
    pub layout: Layout,
    pub matrices: usize,
}

impl Packing {
    /// `None`: the bytes of this tensor stay as ggml has them.
    pub fn of(tier: Tier, tensor: &Tensor) -> Option<Packing> {
        let kind = weight_type(tensor.type_)?;
        let [cols, rows, matrices, 1] = tensor.ne.map(|n| usize::try_from(n).unwrap_or(0)) else {
            return None;
        };
        let layout = Layout::new(tier, kind, rows, cols)?;
        let row = layout.ggml_row_bytes();
        let expected = [kind.block_bytes(), row, row * rows, row * rows * matrices];
        let whole = tensor.view_src.is_null() && tensor.nb == expected;
        (whole && matrices > 0).then_some(Packing { layout, matrices })
    }

    /// Bytes of the packed tensor.
    pub fn bytes(&self) -> usize {
        self.matrices * self.layout.bytes()
    }

    /// Bytes of a matrix as ggml has it.
    pub fn ggml_matrix_bytes(&self) -> usize {
        self.layout.rows() * self.layout.ggml_row_bytes()
    }

    /// Packs all matrices, in several threads if that is worth it.
    pub fn pack(&self, source: &[u8], packed: &mut [u8]) {
        /// Bytes that a thread packs in about a millisecond.
        const SHARE: usize = 1 << 20;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = source.len().div_ceil(SHARE).min(cores);
        let groups = self.layout.groups().div_ceil(threads);
        let matrices = source.chunks_exact(self.ggml_matrix_bytes());
        for (source, packed) in matrices.zip(packed.chunks_exact_mut(self.layout.bytes())) {
            let shares = packed.chunks_mut(groups * self.layout.group_bytes());
            std::thread::scope(|scope| {
                for (index, share) in shares.enumerate() {
                    let first = index * groups;
                    let range = first..first + share.len() / self.layout.group_bytes();
                    let pack = move || self.layout.pack_groups(range, source, share);
                    if first + groups < self.layout.groups() {
                        scope.spawn(pack);
                    } else {
                        pack();
                    }
                }
            });
        }
    }

    /// The inverse of [`pack`](Self::pack).
    pub fn unpack(&self, packed: &[u8], out: &mut [u8]) {
        let matrices = packed.chunks_exact(self.layout.bytes());
        for (packed, out) in matrices.zip(out.chunks_exact_mut(self.ggml_matrix_bytes())) {
            self.layout.unpack(packed, out);
        }
    }
}

fn weight_type(kind: sys::ggml_type) -> Option<WeightType> {
    Some(match kind {
        sys::GGML_TYPE_Q4_0 => WeightType::Q4_0,
        sys::GGML_TYPE_Q4_1 => WeightType::Q4_1,
        sys::GGML_TYPE_Q5_0 => WeightType::Q5_0,
        sys::GGML_TYPE_Q5_1 => WeightType::Q5_1,
        sys::GGML_TYPE_Q8_0 => WeightType::Q8_0,
        sys::GGML_TYPE_Q4_K => WeightType::Q4_K,
        sys::GGML_TYPE_Q5_K => WeightType::Q5_K,
        sys::GGML_TYPE_Q6_K => WeightType::Q6_K,
        sys::GGML_TYPE_IQ4_NL => WeightType::IQ4_NL,
        _ => return None,
    })
}
