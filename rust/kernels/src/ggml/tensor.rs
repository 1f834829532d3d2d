//! Questions to a ggml tensor.

use llama_cpp_sys_2 as sys;

use super::bindings::Tensor;

/// A source of a node.
pub(super) fn source(op: &Tensor, index: usize) -> Option<&Tensor> {
    // SAFETY: sources are null or valid as long as the node is.
    unsafe { op.src[index].as_ref() }
}

/// Whether a CPU can read and write the tensor as ggml has it; true for one
/// that has no memory yet.
pub(super) fn is_plain(tensor: &Tensor) -> bool {
    // SAFETY: the buffer is null or valid.
    tensor.buffer.is_null() || unsafe { sys::ggml_backend_buffer_is_host(tensor.buffer) }
}

/// Whether a node computes nothing (ggml_op_is_empty).
pub(super) fn is_empty(node: &Tensor) -> bool {
    matches!(
        node.op,
        sys::GGML_OP_NONE
            | sys::GGML_OP_RESHAPE
            | sys::GGML_OP_VIEW
            | sys::GGML_OP_PERMUTE
            | sys::GGML_OP_TRANSPOSE
    )
}

/// Whether two tensors have memory in common.
pub(super) fn overlap(a: &Tensor, b: &Tensor) -> bool {
    // SAFETY: asks for sizes.
    let end = |tensor: &Tensor| tensor.data.addr() + unsafe { sys::ggml_nbytes(tensor) };
    a.data.addr() < end(b) && b.data.addr() < end(a)
}

/// Bytes as a number of f32 or i32.
pub(super) fn words(bytes: usize) -> Option<usize> {
    bytes.is_multiple_of(4).then_some(bytes / 4)
}

/// Rows of f32, one stride apart, that a CPU can read and write.
#[derive(Clone, Copy)]
pub(super) struct Floats {
    pub data: *mut f32,
    pub rows: usize,
    pub cols: usize,
    /// Floats from one row to the next.
    pub stride: usize,
}

impl Floats {
    /// `None` if the tensor is not like that.
    pub fn of(tensor: &Tensor) -> Option<Floats> {
        let [cols, n1, n2, n3] = tensor.ne.map(|n| n as usize);
        let [nb0, nb1, nb2, nb3] = tensor.nb;
        let even = (n2 == 1 || nb2 == n1 * nb1) && (n3 == 1 || nb3 == n2 * nb2);
        let fits = tensor.type_ == sys::GGML_TYPE_F32 && nb0 == 4 && even && is_plain(tensor);
        fits.then_some(Floats {
            data: tensor.data.cast(),
            rows: n1 * n2 * n3,
            cols,
            stride: words(nb1)?,
        })
    }

    /// Whether both have as many rows, of as many values.
    pub fn same_size(&self, other: &Floats) -> bool {
        (self.rows, self.cols) == (other.rows, other.cols)
    }

    /// Whether both are the same memory.
    pub fn same(&self, other: &Floats) -> bool {
        self.same_size(other) && (self.data, self.stride) == (other.data, other.stride)
    }

    /// Whether they have memory in common.
    pub fn overlap(&self, other: &Floats) -> bool {
        let end = |floats: &Floats| {
            let last = floats.rows.saturating_sub(1) * floats.stride;
            floats.data.wrapping_add(last + floats.cols)
        };
        self.data < end(other) && other.data < end(self)
    }
}
