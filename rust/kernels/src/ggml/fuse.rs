//! Joins nodes of ggml's to the products beside them: the norm of the rows
//! before, a gate, or a sum behind.
//!
//! ```text
//! RMS_NORM, MUL ─► MUL_MAT …            ─► products that read norms
//! MUL_MAT (gate), MUL_MAT (up), GLU     ─► a product with a gate
//! MUL_MAT, ADD                          ─► a product that is added
//! ```
//!
//! Each saves a wait of all threads, which for single rows takes as long as
//! such a node, and memory that is written and read again. Nodes are joined
//! only where nothing else uses what is between them, and where they follow
//! each other: so their inputs are still there, and what joins does not depend
//! on the number of rows.

use std::ffi::c_int;

use llama_cpp_sys_2 as sys;

use super::bindings::{Graph, Tensor, ggml_can_fuse_subgraph_ext};
use super::graph::{Node, Work};
use super::product::Norm;
use super::tensor::{Floats, is_empty, source};
use crate::gate::Activation;

/// The nodes of a graph as ggml made it.
#[derive(Clone, Copy)]
pub(super) struct Nodes {
    graph: *mut Graph,
    len: c_int,
}

impl Nodes {
    /// # Safety
    /// The graph is valid as long as this is used, and its nodes do not change.
    pub unsafe fn new(graph: *mut Graph) -> Nodes {
        // SAFETY: as the caller promises.
        let len = unsafe { (*graph).n_nodes };
        Nodes { graph, len }
    }

    /// Those that are computed, with their indices.
    pub fn computed(self) -> impl Iterator<Item = (c_int, *mut Tensor)> {
        let all = (0..self.len).map(move |index| (index, self.at(index)));
        all.filter(|&(_, node)| is_computed(node))
    }

    fn at(self, index: c_int) -> *mut Tensor {
        assert!((0..self.len).contains(&index));
        // SAFETY: the index is one of the nodes'.
        unsafe { *(*self.graph).nodes.add(index as usize) }
    }

    /// The first node after `index` that is computed.
    fn next(self, index: c_int) -> Option<c_int> {
        (index + 1..self.len).find(|&index| is_computed(self.at(index)))
    }

    /// The last one before it, if it is `wanted`.
    fn previous(self, index: c_int, wanted: &Tensor) -> Option<c_int> {
        let mut before = (0..index).rev();
        let index = before.find(|&index| is_computed(self.at(index)))?;
        std::ptr::eq(self.at(index), wanted).then_some(index)
    }

    /// Whether nodes, in their order, can be computed as one whose results are
    /// the `outputs` among them.
    fn can_fuse(self, nodes: &[c_int], outputs: &[c_int]) -> bool {
        // SAFETY: nodes are valid.
        let operation = |&index: &c_int| unsafe { (*self.at(index)).op };
        let operations: Vec<_> = nodes.iter().map(operation).collect();
        // SAFETY: as many operations as nodes.
        unsafe {
            ggml_can_fuse_subgraph_ext(
                self.graph,
                nodes.as_ptr(),
                nodes.len() as c_int,
                operations.as_ptr(),
                outputs.as_ptr(),
                outputs.len() as c_int,
            )
        }
    }
}

/// Whether ggml computes a node; it passes over others.
fn is_computed(node: *mut Tensor) -> bool {
    // SAFETY: nodes of a graph are valid.
    let node = unsafe { &*node };
    !is_empty(node) && node.flags & sys::GGML_TENSOR_FLAG_COMPUTE as i32 != 0
}

/// Joins what can be joined to `nodes`, ours in the order of the graph, some of
/// which may be left out then; and the indices of nodes that need not be computed.
pub(super) fn fuse(graph: Nodes, nodes: &mut Vec<Node>) -> Vec<c_int> {
    let mut done = Vec::new();
    for start in 0..nodes.len() {
        join_norm(graph, &mut nodes[start..], &mut done);
    }
    let mut joined: Vec<Node> = Vec::with_capacity(nodes.len());
    for node in nodes.drain(..) {
        let last = joined.last_mut();
        if !last.is_some_and(|last| join_gate(graph, last, &node, &mut done)) {
            joined.push(node);
        }
    }
    for node in &mut joined {
        join_sum(graph, node, &mut done);
    }
    *nodes = joined;
    done
}

/// Joins a norm to the products that multiply it, the first of `nodes` and some
/// that follow; all others would need it as well.
fn join_norm(graph: Nodes, nodes: &mut [Node], done: &mut Vec<c_int>) -> Option<()> {
    let rows = |node: &Node| match &node.work {
        // SAFETY: a node of the graph.
        Work::Product(product) => source(unsafe { &*node.tensor }, 1).zip(Some(product.quantizes)),
        _ => None,
    };
    let (weighted, true) = rows(nodes.first()?)? else {
        return None;
    };
    if weighted.op != sys::GGML_OP_MUL {
        return None;
    }
    let others = nodes[1..].iter().map_while(|node| {
        let (other, quantizes) = rows(node)?;
        (std::ptr::eq(other, weighted) && !quantizes).then_some(node.index)
    });
    let products: Vec<c_int> = std::iter::once(nodes[0].index).chain(others).collect();
    let second = graph.previous(nodes[0].index, weighted)?;
    let (a, b) = (source(weighted, 0)?, source(weighted, 1)?);
    let (norm, weight) = if a.op == sys::GGML_OP_RMS_NORM {
        (a, b)
    } else {
        (b, a)
    };
    let first = graph.previous(second, norm)?;
    let inputs = Floats::of(source(norm, 0)?)?;
    let weights = Floats::of(weight)?;
    // What is computed would have as many rows, and fit for one row only.
    let fits = norm.op == sys::GGML_OP_RMS_NORM
        && weight.op == sys::GGML_OP_NONE
        && inputs.same_size(&Floats::of(weighted)?)
        && (weights.rows, weights.cols) == (1, inputs.cols);
    let all: Vec<c_int> = [first, second].iter().chain(&products).copied().collect();
    if !fits || !graph.can_fuse(&all, &products) {
        return None;
    }
    // The others find the rows quantized.
    let Work::Product(product) = &mut nodes[0].work else {
        return None;
    };
    product.inputs = inputs;
    product.norm = Some(Norm {
        weight: weights.data,
        epsilon: f32::from_bits(norm.op_params[0] as u32),
    });
    done.extend([first, second]);
    Some(())
}

/// Makes the product `first` and the next one, `second`, one of them a gate of
/// the other, the node of their gated unit.
fn join_gate(graph: Nodes, first: &mut Node, second: &Node, done: &mut Vec<c_int>) -> bool {
    let (Work::Product(a), Work::Product(b)) = (&mut first.work, &second.work) else {
        return false;
    };
    let Some(index) = graph.next(second.index) else {
        return false;
    };
    // SAFETY: nodes of the graph.
    let (unit, a_tensor, b_tensor) =
        unsafe { (&*graph.at(index), &*first.tensor, &*second.tensor) };
    let sources = (source(unit, 0), source(unit, 1));
    let is = |tensor: Option<&Tensor>, other| tensor.is_some_and(|t| std::ptr::eq(t, other));
    let first_is_gate = is(sources.0, a_tensor) && is(sources.1, b_tensor);
    let second_is_gate = is(sources.0, b_tensor) && is(sources.1, a_tensor);
    let Some((activation, output)) = activation(unit).zip(Floats::of(unit)) else {
        return false;
    };
    let fits = (first_is_gate || second_is_gate)
        && graph.next(first.index) == Some(second.index)
        && !b.quantizes
        && a.is_plain()
        && b.is_plain()
        && output.same_size(&a.output)
        && output.same_size(&b.output);
    if !fits || !graph.can_fuse(&[first.index, second.index, index], &[index]) {
        return false;
    }
    let (gate, up) = if first_is_gate {
        (a.matrix, b.matrix)
    } else {
        (b.matrix, a.matrix)
    };
    done.extend([first.index, second.index]);
    a.matrix = up;
    a.gate = Some((activation, gate));
    a.output = output;
    (first.index, first.tensor) = (index, graph.at(index));
    true
}

/// What a gated unit does with its gate; `None` for other nodes.
fn activation(unit: &Tensor) -> Option<Activation> {
    if unit.op != sys::GGML_OP_GLU {
        return None;
    }
    match unit.op_params[0] as sys::ggml_glu_op {
        sys::GGML_GLU_OP_SWIGLU => Some(Activation::Silu),
        sys::GGML_GLU_OP_GEGLU => Some(Activation::Gelu),
        _ => None,
    }
}

/// Makes a product the node of its sum with something else.
fn join_sum(graph: Nodes, node: &mut Node, done: &mut Vec<c_int>) -> Option<()> {
    let Work::Product(product) = &mut node.work else {
        return None;
    };
    let index = graph.next(node.index)?;
    // SAFETY: a node of the graph.
    let sum = unsafe { &*graph.at(index) };
    if sum.op != sys::GGML_OP_ADD || !product.is_plain() {
        return None;
    }
    let (a, b) = (source(sum, 0)?, source(sum, 1)?);
    let is_ours = |tensor| std::ptr::eq(tensor, node.tensor);
    let other = if is_ours(a) { b } else { a };
    let (addend, output) = (Floats::of(other)?, Floats::of(sum)?);
    let fits = is_ours(a) != is_ours(b)
        && output.same_size(&product.output)
        && output.same_size(&addend)
        && (output.same(&addend) || !output.overlap(&addend));
    if !fits || !graph.can_fuse(&[node.index, index], &[index]) {
        return None;
    }
    done.push(node.index);
    product.addend = Some(addend);
    product.output = output;
    (node.index, node.tensor) = (index, graph.at(index));
    Some(())
}
