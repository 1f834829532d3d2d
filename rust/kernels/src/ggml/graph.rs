//! Computes a graph: nodes with packed weights, and attention beside them, are
//! custom operations of ours in a graph that is otherwise the same, so that
//! they run in ggml's own threads, in their places among ggml's nodes.

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use llama_cpp_sys_2 as sys;

use super::attention::AttentionNode;
use super::bindings::{ALL_THREADS, Backend, CustomParams, Graph, Tensor};
use super::buffer::{packed_buffer, unpacked};
use super::fuse::{Nodes, fuse};
use super::hooks::tier;
use super::product::{Product, reads_packed};
use super::report::{self, Left};
use super::tensor::{overlap, source};
use super::workspace::Workspace;

type ComputeGraph = unsafe extern "C" fn(*mut Backend, *mut sys::ggml_cgraph) -> sys::ggml_status;

/// ggml's own functions of a backend, and our memory beside it.
struct Wrapped {
    compute: ComputeGraph,
    free: unsafe extern "C" fn(*mut Backend),
    state: Mutex<State>,
}

struct State {
    workspace: Workspace,
    /// The graph that was computed last: the next one is often the same.
    last: Option<Rewritten>,
}

impl Wrapped {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
        state: Mutex::new(State {
            workspace: Workspace::new(),
            last: None,
        }),
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
        let mut state = wrapped.state();
        let threads = usize::try_from(threads).unwrap_or(1).max(1);
        // llama.cpp says it before each graph.
        if threads != state.workspace.threads() {
            state.workspace.set_threads(threads);
            // It has room for that many.
            state.last = None;
        }
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
    let State { workspace, last } = &mut *wrapped.state();
    let graph = graph.cast::<Graph>();
    // SAFETY: the graph is valid and nobody else computes it meanwhile.
    unsafe {
        if last.as_ref().is_none_or(|last| !last.is_of(graph)) {
            // What the old one knows may be freed.
            *last = None;
            *last = Rewritten::new(graph, workspace);
        }
        match last {
            Some(rewritten) => rewritten.compute(workspace, |graph| {
                // Passed on.
                (wrapped.compute)(backend, graph)
            }),
            None => sys::GGML_STATUS_ALLOC_FAILED,
        }
    }
}

/// A node that we compute.
pub(super) struct Node {
    /// Of the node in the graph.
    pub index: c_int,
    /// The node in ggml's graph.
    pub tensor: *mut Tensor,
    pub work: Work,
    /// The node in ours.
    custom: Tensor,
    workspace: *const Workspace,
}

pub(super) enum Work {
    Product(Product),
    Attention(AttentionNode),
}

/// A graph with our nodes in it.
struct Rewritten {
    /// Of ggml's graph: another one for each that may be different, or 0.
    uid: u64,
    /// With `order` as its nodes.
    graph: Graph,
    order: Vec<*mut Tensor>,
    nodes: Box<[Node]>,
    /// Nodes of ggml's that read packed weights.
    readers: Vec<*mut Tensor>,
    /// What ggml computes of it.
    left: Left,
}

// SAFETY: addresses, which are used under the lock of a backend by who computes
// a graph that they are valid for.
unsafe impl Send for Rewritten {}

impl Rewritten {
    /// Whether this was made of this very graph.
    ///
    /// # Safety
    /// The graph is valid.
    unsafe fn is_of(&self, graph: *const Graph) -> bool {
        // SAFETY: as the caller promises.
        self.uid != 0 && self.uid == unsafe { (*graph).uid }
    }

    /// `None` if there is not enough memory.
    ///
    /// # Safety
    /// `graph` is valid, and nobody changes its nodes meanwhile.
    unsafe fn new(graph: *mut Graph, workspace: &mut Workspace) -> Option<Rewritten> {
        let mut nodes = Vec::new();
        let mut readers = Vec::new();
        let mut left = Left::Nothing;
        // The rows that are in the workspace in 8 bits.
        let mut quantized: Option<&Tensor> = None;
        // SAFETY: as the caller promises.
        let all = unsafe { Nodes::new(graph) };
        for (index, tensor) in all.computed() {
            // SAFETY: nodes of a graph are valid, and nobody changes them.
            let node = unsafe { &*tensor };
            let work = if let Some(mut product) = Product::new(tier(), node) {
                // Several products of the same rows follow each other, e.g.
                // those of queries, keys and values.
                let inputs = source(node, 1)?;
                product.quantizes = !quantized.is_some_and(|rows| std::ptr::eq(rows, inputs));
                quantized = Some(inputs);
                Some(Work::Product(product))
            } else if let Some(attention) = AttentionNode::new(tier(), node) {
                attention.reserve(workspace)?;
                quantized = None;
                Some(Work::Attention(attention))
            } else {
                if reads_packed(node) {
                    readers.push(tensor);
                }
                left = left.max(Left::of(node));
                None
            };
            if quantized.is_some_and(|rows| overlap(rows, node)) {
                quantized = None;
            }
            nodes.extend(work.map(|work| Node {
                index,
                tensor,
                work,
                custom: *node,
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
            left = left.max(Left::Weights);
        }
        let joined = fuse(all, &mut nodes);
        let mut nodes = nodes.into_boxed_slice();
        for node in &mut nodes {
            if let Work::Product(product) = &mut node.work {
                product.reserve(workspace)?;
            }
            // SAFETY: `fuse` may have made it the work of another node.
            node.custom = unsafe { *node.tensor };
            node.custom.op = sys::GGML_OP_CUSTOM;
        }
        let mut ours = nodes.iter_mut().peekable();
        let order = all.computed().filter_map(|(index, tensor)| {
            let own = ours.next_if(|node| node.index == index);
            let own = own.map(|node| &raw mut node.custom);
            own.or((!joined.contains(&index)).then_some(tensor))
        });
        let order = order.collect();
        Some(Rewritten {
            // SAFETY: as the caller promises.
            uid: unsafe { (*graph).uid },
            graph: unsafe { *graph },
            order,
            nodes,
            readers,
            left,
        })
    }

    /// Has ggml compute the graph.
    ///
    /// # Safety
    /// All nodes have their memory; `compute` is ggml's own.
    unsafe fn compute(
        &mut self,
        workspace: &mut Workspace,
        compute: impl Fn(*mut sys::ggml_cgraph) -> sys::ggml_status,
    ) -> sys::ggml_status {
        report::leave(self.left);
        workspace.barrier.reset();
        for node in &mut self.nodes {
            if let Work::Product(product) = &mut node.work {
                product.begin();
            }
            node.workspace = workspace;
            let data = std::ptr::from_mut(node);
            // SAFETY: nodes have 64 bytes of parameters; `data` is valid as
            // long as its node is.
            unsafe {
                let parameters = (&raw mut (*data).custom.op_params).cast::<CustomParams>();
                parameters.write_unaligned(CustomParams {
                    function: compute_node,
                    tasks: ALL_THREADS,
                    data: data.cast(),
                });
            }
        }
        // SAFETY: nodes of ggml's; ours know their packed weights already.
        let _lent = unsafe { Lent::new(&self.readers) };
        self.graph.nodes = self.order.as_mut_ptr();
        self.graph.n_nodes = self.order.len() as c_int;
        compute((&raw mut self.graph).cast())
    }
}

/// Weights that nodes of ggml's read, in ggml's layout until this is dropped.
struct Lent(Vec<Unpacked>);

/// A weight that a node of ggml's reads, in ggml's layout.
struct Unpacked {
    tensor: *mut Tensor,
    data: *mut c_void,
    _memory: Vec<u8>,
}

impl Lent {
    /// # Safety
    /// Valid nodes of a graph; nobody else uses their sources until this is
    /// dropped.
    unsafe fn new(readers: &[*mut Tensor]) -> Lent {
        let mut lent = Lent(Vec::new());
        for node in readers {
            // SAFETY: as the caller promises.
            unsafe { lent.unpack_sources(&**node) };
        }
        lent
    }

    /// Lends ggml the weights of a node as it knows them.
    ///
    /// # Safety
    /// As for [`new`](Self::new); `node` is one of them.
    unsafe fn unpack_sources(&mut self, node: &Tensor) {
        for source in node.src {
            // SAFETY: sources are null or valid.
            unsafe {
                let packed = source.as_ref().and_then(packed_buffer).is_some();
                if !packed || self.0.iter().any(|other| other.tensor == source) {
                    continue;
                }
                let view = (*source).view_src;
                let root = if view.is_null() { source } else { view };
                // An earlier node may have lent the root already.
                let lent = self.0.iter().find(|other| other.tensor == root);
                let mut memory = match lent {
                    Some(lent) => lent._memory.clone(),
                    None => unpacked(&*root),
                };
                let data = std::mem::replace(
                    &mut (*source).data,
                    memory.as_mut_ptr().add((*source).view_offs).cast(),
                );
                self.0.push(Unpacked {
                    tensor: source,
                    data,
                    _memory: memory,
                });
            }
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        for lent in &self.0 {
            // SAFETY: a source of the nodes of `new`, which still live.
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
    // SAFETY: `data` is what `Rewritten` wrote; ggml's threads go through the
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
