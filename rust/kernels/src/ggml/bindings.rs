//! The structs of ggml's `ggml-backend-impl.h` and `ggml-impl.h` that the
//! vehicle reads and writes. They have no stable layout and no version of
//! their own: [`GGML_VERSION`] and [`API_VERSION`] say whose they are, and
//! `hooks.rs` checks both, and what can be checked of the layout, before it
//! changes anything.

use std::ffi::{c_char, c_int, c_void};

use llama_cpp_sys_2 as sys;

/// What `ggml_version()` must say.
pub(super) const GGML_VERSION: &str = "0.26.0";

/// GGML_BACKEND_API_VERSION.
pub(super) const API_VERSION: c_int = 3;

/// GGML_N_TASKS_MAX: a custom operation runs in all threads.
pub(super) const ALL_THREADS: c_int = -1;

pub(super) type Tensor = sys::ggml_tensor;

/// A function that the vehicle passes on, but never calls.
type Opaque = Option<unsafe extern "C" fn()>;

/// ggml_backend_buffer_type_i
#[repr(C)]
pub(super) struct BufferTypeInterface {
    pub get_name: unsafe extern "C" fn(*mut BufferType) -> *const c_char,
    pub alloc_buffer: unsafe extern "C" fn(*mut BufferType, usize) -> *mut Buffer,
    pub alloc_buffer_n: Opaque,
    pub get_alignment: unsafe extern "C" fn(*mut BufferType) -> usize,
    pub get_max_size: Opaque,
    pub get_alloc_size: Option<unsafe extern "C" fn(*mut BufferType, *const Tensor) -> usize>,
    pub get_alloc_size_n: Opaque,
    pub is_host: Option<unsafe extern "C" fn(*mut BufferType) -> bool>,
}

/// ggml_backend_buffer_type
#[repr(C)]
pub(super) struct BufferType {
    pub interface: BufferTypeInterface,
    pub device: *mut Device,
    pub context: *mut c_void,
}

/// ggml_backend_buffer_i
#[repr(C)]
pub(super) struct BufferInterface {
    pub free_buffer: Option<unsafe extern "C" fn(*mut Buffer)>,
    pub get_base: Option<unsafe extern "C" fn(*mut Buffer) -> *mut c_void>,
    pub init_tensor: Opaque,
    pub memset_tensor: Opaque,
    pub set_tensor:
        Option<unsafe extern "C" fn(*mut Buffer, *mut Tensor, *const c_void, usize, usize)>,
    pub get_tensor:
        Option<unsafe extern "C" fn(*mut Buffer, *const Tensor, *mut c_void, usize, usize)>,
    pub set_tensor_2d: Opaque,
    pub get_tensor_2d: Opaque,
    pub cpy_tensor: Opaque,
    pub clear: Option<unsafe extern "C" fn(*mut Buffer, u8)>,
    pub reset: Opaque,
}

/// ggml_backend_buffer
#[repr(C)]
pub(super) struct Buffer {
    pub interface: BufferInterface,
    pub buffer_type: *mut BufferType,
    pub context: *mut c_void,
    pub size: usize,
    pub usage: c_int,
}

/// ggml_backend_i
#[repr(C)]
pub(super) struct BackendInterface {
    pub get_name: Option<unsafe extern "C" fn(*mut Backend) -> *const c_char>,
    pub free: Option<unsafe extern "C" fn(*mut Backend)>,
    pub set_tensor_async: Opaque,
    pub get_tensor_async: Opaque,
    pub set_tensor_2d_async: Opaque,
    pub get_tensor_2d_async: Opaque,
    pub cpy_tensor_async: Opaque,
    pub synchronize: Opaque,
    pub graph_plan_create: Opaque,
    pub graph_plan_free: Opaque,
    pub graph_plan_update: Opaque,
    pub graph_plan_compute: Opaque,
    pub graph_compute:
        Option<unsafe extern "C" fn(*mut Backend, *mut sys::ggml_cgraph) -> sys::ggml_status>,
    pub event_record: Opaque,
    pub event_wait: Opaque,
    pub graph_optimize: Opaque,
}

/// ggml_backend
#[repr(C)]
pub(super) struct Backend {
    pub guid: *mut c_void,
    pub interface: BackendInterface,
    pub device: *mut Device,
    pub context: *mut c_void,
}

/// ggml_hash_set
#[derive(Clone, Copy)]
#[repr(C)]
struct HashSet {
    size: usize,
    used: *mut u32,
    keys: *mut *mut Tensor,
}

/// ggml_cgraph
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Graph {
    size: c_int,
    pub n_nodes: c_int,
    n_leafs: c_int,
    pub nodes: *mut *mut Tensor,
    grads: *mut *mut Tensor,
    grad_accs: *mut *mut Tensor,
    leafs: *mut *mut Tensor,
    use_counts: *mut i32,
    visited_hash_set: HashSet,
    order: c_int,
    /// If not 0, that of graphs with the same nodes in the same memory.
    pub uid: u64,
}

impl Graph {
    /// Whether the members of a new graph are what ggml's public functions say.
    ///
    /// # Safety
    /// The graph is valid; it is not a scheduler's.
    pub unsafe fn is_known(graph: *mut sys::ggml_cgraph) -> bool {
        // SAFETY: as the caller promises; the versions fix the layout.
        unsafe {
            let members = &*graph.cast::<Graph>();
            members.size == sys::ggml_graph_size(graph)
                && members.n_nodes == sys::ggml_graph_n_nodes(graph)
                && members.nodes == sys::ggml_graph_nodes(graph)
                && members.order == 0
                && members.uid == 0
        }
    }
}

pub(super) type InitBackend = unsafe extern "C" fn(*mut Device, *const c_char) -> *mut Backend;
pub(super) type SupportsOp = unsafe extern "C" fn(*mut Device, *const Tensor) -> bool;
pub(super) type SupportsBufferType = unsafe extern "C" fn(*mut Device, *mut BufferType) -> bool;

/// ggml_backend_device_i
#[repr(C)]
pub(super) struct DeviceInterface {
    pub get_name: Option<unsafe extern "C" fn(*mut Device) -> *const c_char>,
    pub get_description: Opaque,
    pub get_memory: Opaque,
    pub get_type: Option<unsafe extern "C" fn(*mut Device) -> sys::ggml_backend_dev_type>,
    pub get_props: Opaque,
    pub init_backend: Option<InitBackend>,
    pub get_buffer_type: Option<unsafe extern "C" fn(*mut Device) -> *mut BufferType>,
    pub get_host_buffer_type: Opaque,
    pub buffer_from_host_ptr: Opaque,
    pub supports_op: Option<SupportsOp>,
    pub supports_buft: Option<SupportsBufferType>,
    pub offload_op: Opaque,
    pub event_new: Opaque,
    pub event_free: Opaque,
    pub event_synchronize: Opaque,
}

/// ggml_backend_device
#[repr(C)]
pub(super) struct Device {
    pub interface: DeviceInterface,
    pub registry: *mut Registry,
    pub context: *mut c_void,
}

pub(super) type GetProcAddress = unsafe extern "C" fn(*mut Registry, *const c_char) -> *mut c_void;

/// ggml_backend_reg_i
#[repr(C)]
pub(super) struct RegistryInterface {
    pub get_name: Option<unsafe extern "C" fn(*mut Registry) -> *const c_char>,
    pub get_device_count: Option<unsafe extern "C" fn(*mut Registry) -> usize>,
    pub get_device: Option<unsafe extern "C" fn(*mut Registry, usize) -> *mut Device>,
    pub get_proc_address: Option<GetProcAddress>,
}

/// ggml_backend_reg
#[repr(C)]
pub(super) struct Registry {
    pub api_version: c_int,
    pub interface: RegistryInterface,
    pub context: *mut c_void,
}

/// What the function found as "ggml_backend_dev_get_extra_bufts" is: a list
/// of buffer types that weights may be in, ended by null.
pub(super) type GetExtraBufferTypes = unsafe extern "C" fn(*mut Device) -> *mut *mut BufferType;

/// What the function found as "ggml_backend_set_n_threads" is.
pub(super) type SetThreads = unsafe extern "C" fn(*mut Backend, c_int);

/// ggml_custom_op_params, which are at the start of `op_params` of a tensor
/// whose operation is GGML_OP_CUSTOM.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct CustomParams {
    pub function: unsafe extern "C" fn(*mut Tensor, c_int, c_int, *mut c_void),
    pub tasks: c_int,
    pub data: *mut c_void,
}

unsafe extern "C" {
    /// Makes a buffer that ggml frees after `free_buffer`.
    pub(super) fn ggml_backend_buffer_init(
        buffer_type: *mut BufferType,
        interface: BufferInterface,
        context: *mut c_void,
        size: usize,
    ) -> *mut Buffer;

    /// Whether nodes of a graph can be computed as one that writes `outputs`
    /// only: their operations are `operations`, and nothing else uses what the
    /// other ones compute, in the whole graph that this one may be a part of.
    pub(super) fn ggml_can_fuse_subgraph_ext(
        graph: *const Graph,
        nodes: *const c_int,
        count: c_int,
        operations: *const sys::ggml_op,
        outputs: *const c_int,
        output_count: c_int,
    ) -> bool;
}

// As many members as the headers have.
const POINTER: usize = size_of::<usize>();
const _: () = {
    assert!(size_of::<BufferType>() == (8 + 2) * POINTER);
    assert!(size_of::<Buffer>() == (11 + 4) * POINTER);
    assert!(size_of::<Backend>() == (1 + 16 + 2) * POINTER);
    assert!(size_of::<Device>() == (15 + 2) * POINTER);
    assert!(size_of::<Registry>() == (1 + 4 + 1) * POINTER);
    assert!(size_of::<Graph>() == (2 + 5 + 3 + 2) * POINTER);
    assert!(size_of::<CustomParams>() == 3 * POINTER);
    assert!(size_of::<CustomParams>() <= size_of::<[i32; 16]>());
};
