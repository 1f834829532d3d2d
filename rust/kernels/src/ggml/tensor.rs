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
