//! Which tensors are packed, and how.

use std::sync::{LazyLock, Mutex, PoisonError};
use std::thread::available_parallelism;

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
        /// Bytes that a thread takes at once: a huge page. Threads that touch
        /// the same page first would have it zeroed twice, and smaller
        /// tensors are packed in the time that starting a thread takes.
        const SHARE: usize = 2 << 20;
        static CORES: LazyLock<usize> =
            LazyLock::new(|| available_parallelism().map_or(1, usize::from));
        let layout = &self.layout;
        let groups = (SHARE / layout.group_bytes()).max(1);
        let matrices = source
            .chunks_exact(self.ggml_matrix_bytes())
            .zip(packed.chunks_exact_mut(layout.bytes()));
        let shares = matrices.flat_map(|(source, packed)| {
            let shares = packed.chunks_mut(groups * layout.group_bytes());
            shares.enumerate().map(move |(index, share)| {
                let first = index * groups;
                (
                    first..first + share.len() / layout.group_bytes(),
                    source,
                    share,
                )
            })
        });
        let shares = Mutex::new(shares);
        let next = || shares.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some((groups, source, share)) = next() {
                layout.pack_groups(groups, source, share);
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..(source.len() / SHARE).min(*CORES) {
                // Without it the others do the work.
                let _ = std::thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
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
