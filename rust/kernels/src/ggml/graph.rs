//! Computes a graph: nodes with packed weights are made custom operations of
//! ours for the time of the call, so that they run in ggml's own threads, in
//! their places among ggml's nodes.

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use llama_cpp_sys_2 as sys;

use super::attention::AttentionNode;
use super::bindings::{ALL_THREADS, Backend, CustomParams, Tensor};
use super::buffer::{packed_buffer, unpacked};
use super::hooks::tier;
use super::product::{Product, reads_packed};
use super::tensor::{is_empty, overlap, source};
use super::workspace::Workspace;

type ComputeGraph = unsafe extern "C" fn(*mut Backend, *mut sys::ggml_cgraph) -> sys::ggml_status;

/// ggml's own functions of a backend, and our memory beside it.
struct Wrapped {
    compute: ComputeGraph,
    free: unsafe extern "C" fn(*mut Backend),
    workspace: Mutex<Workspace>,
}

impl Wrapped {
    fn workspace(&self) -> MutexGuard<'_, Workspace> {
        self.workspace
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The wrapped backends by address.
static BACKENDS: OnceLock<Mutex<HashMap<usize, Arc<Wrapped>>>> = OnceLock::new();

fn backends() -> MutexGuard<'static, HashMap<usize, Arc<Wrapped>>> {
    let backends = BACKENDS.get_or_init(Mutex::default);
    backends.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a CPU backend compute with our kernels.
///
/// # Safety
/// `backend` is a CPU backend that was just made.
pub(super) unsafe fn wrap(backend: *mut Backend) {
    // SAFETY: as the caller promises.
    let interface = unsafe { &mut (*backend).interface };
    let (Some(compute), Some(free)) = (interface.graph_compute, interface.free) else {
        return;
    };
    let wrapped = Wrapped {
        compute,
        free,
        workspace: Mutex::new(Workspace::new()),
    };
    backends().insert(backend.addr(), Arc::new(wrapped));
    interface.graph_compute = Some(graph_compute);
    interface.free = Some(free_backend);
    // Plans would go around us; nothing in llama.cpp makes any.
    interface.graph_plan_create = None;
    interface.graph_plan_compute = None;
}

/// `backend` will compute with so many threads.
pub(super) fn set_threads(backend: *mut Backend, threads: c_int) {
    let wrapped = backends().get(&backend.addr()).cloned();
    if let Some(wrapped) = wrapped {
        wrapped
            .workspace()
            .set_threads(usize::try_from(threads).unwrap_or(1).max(1));
    }
}

unsafe extern "C" fn free_backend(backend: *mut Backend) {
    let wrapped = backends().remove(&backend.addr());
    let wrapped = wrapped.expect("only wrapped backends have this function");
    // SAFETY: passed on.
    unsafe { (wrapped.free)(backend) }
}

unsafe extern "C" fn graph_compute(
    backend: *mut Backend,
    graph: *mut sys::ggml_cgraph,
) -> sys::ggml_status {
    let wrapped = backends().get(&backend.addr()).cloned();
    let wrapped = wrapped.expect("only wrapped backends have this function");
    let mut workspace = wrapped.workspace();
    // SAFETY: the graph is valid and nobody else computes it meanwhile.
    let Some(rewrite) = (unsafe { Rewrite::new(graph, &mut workspace) }) else {
        return sys::GGML_STATUS_ALLOC_FAILED;
    };
    // SAFETY: passed on; `rewrite` outlives the call.
    let status = unsafe { (wrapped.compute)(backend, graph) };
    drop(rewrite);
    status
}

/// A node that we compute, and what it was.
struct Node {
    tensor: *mut Tensor,
    operation: sys::ggml_op,
    parameters: [i32; 16],
    work: Work,
    workspace: *const Workspace,
}

enum Work {
    Product(Product),
    Attention(AttentionNode),
}

/// A graph with our nodes in it, until it is dropped.
struct Rewrite {
    nodes: Box<[Node]>,
    unpacked: Vec<Unpacked>,
}

/// A weight that a node of ggml's reads, in ggml's layout.
struct Unpacked {
    tensor: *mut Tensor,
    data: *mut c_void,
    _memory: Vec<u8>,
}

impl Rewrite {
    /// `None` if there is not enough memory.
    ///
    /// # Safety
    /// `graph` is valid, and nobody else uses its nodes until this is dropped.
    unsafe fn new(graph: *mut sys::ggml_cgraph, workspace: &mut Workspace) -> Option<Rewrite> {
        let mut nodes = Vec::new();
        let mut others = Vec::new();
        // The rows that are in the workspace in 8 bits.
        let mut quantized: Option<&Tensor> = None;
        // SAFETY: indices are below the number of nodes.
        let all = (0..unsafe { sys::ggml_graph_n_nodes(graph) })
            .map(|index| unsafe { sys::ggml_graph_node(graph, index) });
        for tensor in all {
            // SAFETY: nodes of a graph are valid, and nobody changes them.
            let node = unsafe { &*tensor };
            // ggml computes neither: what they would quantize is not there.
            if is_empty(node) || node.flags & sys::GGML_TENSOR_FLAG_COMPUTE as i32 == 0 {
                continue;
            }
            let work = if let Some(mut product) = Product::new(tier(), node) {
                // Several products of the same rows follow each other, e.g.
                // those of queries, keys and values.
                let inputs = source(node, 1)?;
                product.quantizes = !quantized.is_some_and(|rows| std::ptr::eq(rows, inputs));
                product.reserve(workspace)?;
                quantized = Some(inputs);
                Some(Work::Product(product))
            } else if let Some(attention) = AttentionNode::new(tier(), node) {
                attention.reserve(workspace)?;
                quantized = None;
                Some(Work::Attention(attention))
            } else {
                if reads_packed(node) {
                    others.push(tensor);
                }
                None
            };
            if quantized.is_some_and(|rows| overlap(rows, node)) {
                quantized = None;
            }
            nodes.extend(work.map(|work| Node {
                tensor,
                operation: node.op,
                parameters: node.op_params,
                work,
                workspace: std::ptr::null(),
            }));
        }
        // A graph without packed weights is of a model that our kernels were
        // not wanted for, or have not taken anything of.
        if !nodes
            .iter()
            .any(|node| matches!(node.work, Work::Product(_)))
        {
            nodes.clear();
        }
        workspace.barrier.reset();

        let mut nodes = nodes.into_boxed_slice();
        for node in &mut nodes {
            node.workspace = workspace;
        }
        let mut rewrite = Rewrite {
            nodes,
            unpacked: Vec::new(),
        };
        for node in &rewrite.nodes {
            // SAFETY: nodes have 64 bytes of parameters, and `data` is valid
            // as long as the node is a custom operation.
            unsafe {
                (*node.tensor).op = sys::GGML_OP_CUSTOM;
                let parameters = &raw mut (*node.tensor).op_params;
                parameters
                    .cast::<CustomParams>()
                    .write_unaligned(CustomParams {
                        function: compute_node,
                        tasks: ALL_THREADS,
                        data: std::ptr::from_ref(node).cast_mut().cast(),
                    });
            }
        }
        for node in others {
            // SAFETY: a node with valid sources; ours have taken the addresses
            // of their packed weights already.
            unsafe { rewrite.unpack_sources(&*node) };
        }
        Some(rewrite)
    }

    /// Lends ggml the weights of a node as it knows them.
    ///
    /// # Safety
    /// As for [`new`](Self::new); `node` is one of the graph's.
    unsafe fn unpack_sources(&mut self, node: &Tensor) {
        for source in node.src {
            // SAFETY: sources are null or valid.
            unsafe {
                let packed = source.as_ref().and_then(packed_buffer).is_some();
                if !packed || self.unpacked.iter().any(|other| other.tensor == source) {
                    continue;
                }
                let view = (*source).view_src;
                let root = if view.is_null() { source } else { view };
                // An earlier node may have lent the root already.
                let lent = self.unpacked.iter().find(|other| other.tensor == root);
                let mut memory = match lent {
                    Some(lent) => lent._memory.clone(),
                    None => unpacked(&*root),
                };
                let data = std::mem::replace(
                    &mut (*source).data,
                    memory.as_mut_ptr().add((*source).view_offs).cast(),
                );
                self.unpacked.push(Unpacked {
                    tensor: source,
                    data,
                    _memory: memory,
                });
            }
        }
    }
}

impl Drop for Rewrite {
    fn drop(&mut self) {
        for node in &self.nodes {
            // SAFETY: the nodes of `new`, which live as long as the graph.
            unsafe {
                (*node.tensor).op = node.operation;
                (*node.tensor).op_params = node.parameters;
            }
        }
        for lent in &self.unpacked {
            // SAFETY: as above.
            unsafe { (*lent.tensor).data = lent.data };
        }
    }
}

unsafe extern "C" fn compute_node(
    _: *mut Tensor,
    thread: c_int,
    threads: c_int,
    data: *mut c_void,
) {
    // SAFETY: `data` is what `Rewrite` wrote; ggml's threads go through the
    // nodes in order, with barriers in between.
    unsafe {
        let node = &*data.cast::<Node>();
        let (workspace, thread, threads) = (&*node.workspace, thread as usize, threads as usize);
        match &node.work {
            Work::Product(product) => product.compute(workspace, thread, threads),
            Work::Attention(attention) => attention.compute(workspace, thread, threads),
        }
    }
}
