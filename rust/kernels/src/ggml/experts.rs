//! Which experts of ggml's MUL_MAT_ID multiply which rows.

use llama_cpp_sys_2 as sys;

use super::bindings::Tensor;
use super::tensor::{is_plain, source, words};
use super::workspace::Selection;
use crate::matmul::Selected;

/// Which experts multiply which rows.
pub(super) struct Experts {
    ids: *const i32,
    tokens: usize,
    /// Experts of a token.
    used: usize,
    /// Ints from one token to the next.
    stride: usize,
    /// Rows of inputs of a token: as many as experts, or one for all.
    inputs: usize,
}

impl Experts {
    /// `None`: ggml computes this node.
    pub fn new(op: &Tensor) -> Option<Experts> {
        let (input, ids) = (source(op, 1)?, source(op, 2)?);
        let [used, tokens, 1, 1] = ids.ne.map(|n| n as usize) else {
            return None;
        };
        let [_, inputs, input_tokens, 1] = input.ne.map(|n| n as usize) else {
            return None;
        };
        let fits = ids.type_ == sys::GGML_TYPE_I32
            && ids.nb[0] == 4
            && is_plain(ids)
            && input_tokens == tokens
            && (inputs == 1 || inputs == used);
        fits.then_some(Experts {
            ids: ids.data.cast(),
            tokens,
            used,
            stride: words(ids.nb[1])?,
            inputs,
        })
    }

    /// Sorts the rows by expert.
    ///
    /// # Safety
    /// The ids have their memory.
    pub unsafe fn select(&self, experts: usize, selection: &mut Selection) {
        let id = |token: usize, index: usize| {
            // SAFETY: within the tensor.
            let id = unsafe { self.ids.add(token * self.stride + index).read() };
            let id = usize::try_from(id).unwrap_or(usize::MAX);
            assert!(id < experts, "no such expert");
            id
        };
        let all = || (0..self.tokens).flat_map(|token| (0..self.used).map(move |i| (token, i)));
        selection.starts.clear();
        selection.starts.resize(experts + 1, 0);
        for (token, index) in all() {
            selection.starts[id(token, index) + 1] += 1;
        }
        for expert in 0..experts {
            selection.starts[expert + 1] += selection.starts[expert];
        }
        let mut next = selection.starts.clone();
        selection.rows.clear();
        selection.rows.resize(
            self.tokens * self.used,
            Selected {
                input: 0,
                output: 0,
            },
        );
        for (token, index) in all() {
            let place = &mut next[id(token, index)];
            selection.rows[*place] = Selected {
                input: (token * self.inputs + index % self.inputs) as u32,
                output: (token * self.used + index) as u32,
            };
            *place += 1;
        }
    }
}
