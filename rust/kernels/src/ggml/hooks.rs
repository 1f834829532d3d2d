//! Puts the vehicle behind ggml's CPU device: checks that its structs are what
//! `bindings.rs` says, then replaces four of their function pointers, and two
//! of each new backend, which also loses its plans of graphs (`graph.rs`).
//!
//! ```text
//! registry.get_proc_address → the list of extra buffer types has ours first,
//!                             and we hear how many threads compute
//! device.supports_buft      → the CPU backend works on our buffers
//! device.supports_op        → weights that we can multiply with go there
//! device.init_backend       → each new CPU backend gets …
//!   backend.graph_compute   → … ours (graph.rs)
//!   backend.free            → and forgets its workspace at its end
//! ```

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use llama_cpp_sys_2 as sys;

use super::bindings::{
    API_VERSION, Backend, BufferType, Device, GGML_VERSION, GetExtraBufferTypes, GetProcAddress,
    InitBackend, Registry, SetThreads, SupportsBufferType, SupportsOp, Tensor,
};
use super::{buffer, graph, product, report, self_test};
use crate::dispatch::Tier;

/// ggml's own functions.
struct Originals {
    get_proc_address: GetProcAddress,
    get_extra_buffer_types: GetExtraBufferTypes,
    set_threads: SetThreads,
    init_backend: InitBackend,
    supports_op: SupportsOp,
    supports_buffer_type: SupportsBufferType,
}

static ORIGINALS: OnceLock<Originals> = OnceLock::new();
static TIER: OnceLock<Tier> = OnceLock::new();
/// Whether the self-test has passed: weights are packed only after that.
static PASSED: AtomicBool = AtomicBool::new(false);
static INSTALLED: Mutex<Option<Result<(), String>>> = Mutex::new(None);

const GET_EXTRA_BUFFER_TYPES: &CStr = c"ggml_backend_dev_get_extra_bufts";
const SET_THREADS: &CStr = c"ggml_backend_set_n_threads";

/// The tier that is installed.
pub(super) fn tier() -> Tier {
    *TIER.get().expect("called by ggml after `install`")
}

fn originals() -> &'static Originals {
    ORIGINALS.get().expect("called by ggml after `install`")
}

/// Puts our kernels behind the CPU backend, once a process: later calls only
/// say what the first one did. An error says why llama.cpp's own kernels stay
/// alone.
///
/// Call it after ggml's CPU backend is loaded and before the first model that
/// is to use our kernels. With `fault` the self-test fails for that reason: to
/// see what becomes of the models then.
pub fn install(fault: Option<&str>) -> Result<(), String> {
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    installed.get_or_insert_with(|| try_install(fault)).clone()
}

fn try_install(fault: Option<&str>) -> Result<(), String> {
    let tier = Tier::from_environment()?
        .or_else(Tier::detect)
        .ok_or("there are no kernels for this CPU")?;
    let device = checked_device()?;
    // SAFETY: `checked_device` looked at device and registry, which live as
    // long as the process.
    let (interface, registry) = unsafe { (&raw mut (*device).interface, (*device).registry) };
    // SAFETY: as above; the pointers are there, as `checked_device` says.
    let originals = unsafe {
        let get_proc_address = (*registry).interface.get_proc_address;
        let get_proc_address = get_proc_address.ok_or("the CPU backend exports no functions")?;
        let list = get_proc_address(registry, GET_EXTRA_BUFFER_TYPES.as_ptr());
        let set_threads = get_proc_address(registry, SET_THREADS.as_ptr());
        if list.is_null() || set_threads.is_null() {
            return Err("the CPU backend lacks a function that is needed".into());
        }
        Originals {
            get_proc_address,
            get_extra_buffer_types: std::mem::transmute::<*mut c_void, GetExtraBufferTypes>(list),
            set_threads: std::mem::transmute::<*mut c_void, SetThreads>(set_threads),
            init_backend: (*interface).init_backend.ok_or("no init_backend")?,
            supports_op: (*interface).supports_op.ok_or("no supports_op")?,
            supports_buffer_type: (*interface).supports_buft.ok_or("no supports_buft")?,
        }
    };
    TIER.get_or_init(|| tier);
    let originals = ORIGINALS.get_or_init(|| originals);
    buffer::buffer_type(device);

    // SAFETY: ggml keeps both structs in writable statics. Another model may
    // be computing: it reads a pointer as it was or as it is now, and both are
    // right for weights that are not ours. Backends come last: theirs is what
    // needs the others.
    unsafe {
        (*registry).interface.get_proc_address = Some(get_proc_address);
        (*interface).supports_op = Some(supports_op);
        (*interface).supports_buft = Some(supports_buffer_type);
        (*interface).init_backend = Some(init_backend);
    }
    let passed = self_test::run(device).and(fault.map_or(Ok(()), |fault| Err(fault.into())));
    passed.inspect_err(|_| {
        // SAFETY: as above, in the opposite order. A backend that was made
        // meanwhile stays ours and computes what has no packed weights, which
        // is all there is, as ggml does.
        unsafe {
            (*interface).init_backend = Some(originals.init_backend);
            (*interface).supports_buft = Some(originals.supports_buffer_type);
            (*interface).supports_op = Some(originals.supports_op);
            (*registry).interface.get_proc_address = Some(originals.get_proc_address);
        }
    })?;
    PASSED.store(true, Ordering::Release);
    Ok(())
}

/// Whether the version of ggml, and that of its backends' structs, are those
/// that `bindings.rs` was made for.
fn check_versions(ggml: &CStr, backends: c_int) -> Result<(), String> {
    if ggml.to_bytes() != GGML_VERSION.as_bytes() {
        return Err(format!("made for ggml {GGML_VERSION}, not {ggml:?}"));
    }
    if backends != API_VERSION {
        return Err(format!(
            "made for version {API_VERSION} of ggml's backends, not {backends}"
        ));
    }
    Ok(())
}

/// The CPU device, if versions and structs are the ones we know.
fn checked_device() -> Result<*mut Device, String> {
    // SAFETY: asks for a registered device.
    let device = unsafe { sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU) };
    if device.is_null() {
        return Err("no CPU backend is loaded".into());
    }
    // SAFETY: the device is valid.
    let registry = unsafe { sys::ggml_backend_dev_backend_reg(device) };
    let (device, registry) = (device.cast::<Device>(), registry.cast::<Registry>());
    // SAFETY: a static string; `api_version` is the first member in all versions.
    unsafe {
        check_versions(CStr::from_ptr(sys::ggml_version()), (*registry).api_version)?;
    }
    // Members at the start, in the middle and at the end agree with what
    // ggml's public functions say.
    // SAFETY: the versions fix the layout; the functions only read.
    let known = unsafe {
        let interface = &(*device).interface;
        let is_cpu = |name: *const c_char| CStr::from_ptr(name) == c"CPU";
        let default = sys::ggml_backend_dev_buffer_type(device.cast()).cast::<BufferType>();
        (*device).registry == registry
            && interface
                .get_name
                .is_some_and(|get_name| is_cpu(get_name(device)))
            && interface
                .get_type
                .is_some_and(|get_type| get_type(device) == sys::GGML_BACKEND_DEVICE_TYPE_CPU)
            && interface
                .get_buffer_type
                .is_some_and(|get| get(device) == default)
            && interface
                .supports_buft
                .is_some_and(|supports| supports(device, default))
            && interface.event_synchronize.is_none()
            && (*registry)
                .interface
                .get_name
                .is_some_and(|get_name| is_cpu(get_name(registry)))
            && (*registry)
                .interface
                .get_device
                .is_some_and(|get| get(registry, 0) == device)
            && (*registry).context.is_null()
    };
    known
        .then_some(device)
        .ok_or_else(|| "ggml's CPU device is not the one known".into())
}

unsafe extern "C" fn get_proc_address(registry: *mut Registry, name: *const c_char) -> *mut c_void {
    // SAFETY: ggml passes a C string.
    let wanted = unsafe { CStr::from_ptr(name) };
    if wanted == GET_EXTRA_BUFFER_TYPES {
        return get_extra_buffer_types as GetExtraBufferTypes as *mut c_void;
    }
    if wanted == SET_THREADS {
        return set_threads as SetThreads as *mut c_void;
    }
    // SAFETY: passed on.
    unsafe { (originals().get_proc_address)(registry, name) }
}

unsafe extern "C" fn get_extra_buffer_types(device: *mut Device) -> *mut *mut BufferType {
    struct List(Vec<*mut BufferType>);
    // SAFETY: a list of addresses, which is not changed after it was made.
    unsafe impl Send for List {}
    // SAFETY: as above.
    unsafe impl Sync for List {}
    static LIST: OnceLock<List> = OnceLock::new();

    // SAFETY: passed on.
    let others = unsafe { (originals().get_extra_buffer_types)(device) };
    if !PASSED.load(Ordering::Acquire) || !report::offers() {
        return others;
    }
    let list = LIST.get_or_init(|| {
        let mut list = vec![buffer::buffer_type(device)];
        // SAFETY: ggml's list is null or ends with null.
        unsafe {
            let mut next = others;
            while !next.is_null() && !(*next).is_null() {
                list.push(*next);
                next = next.add(1);
            }
        }
        list.push(null_mut());
        List(list)
    });
    list.0.as_ptr().cast_mut()
}

/// ggml_backend_cpu_set_n_threads
///
/// # Safety
/// `backend` is a CPU backend that computes nothing meanwhile.
pub(super) unsafe extern "C" fn set_threads(backend: *mut Backend, threads: c_int) {
    graph::set_threads(backend, threads);
    // SAFETY: passed on.
    unsafe { (originals().set_threads)(backend, threads) }
}

unsafe extern "C" fn supports_buffer_type(
    device: *mut Device,
    buffer_type: *mut BufferType,
) -> bool {
    // SAFETY: passed on.
    buffer::is_ours(buffer_type)
        || unsafe { (originals().supports_buffer_type)(device, buffer_type) }
}

unsafe extern "C" fn supports_op(device: *mut Device, op: *const Tensor) -> bool {
    // SAFETY: ggml passes a valid tensor, whose sources are null or valid.
    let (tensor, packed) = unsafe {
        let packed = (*op).src.iter().filter_map(|source| source.as_ref());
        (
            &*op,
            packed
                .filter_map(|source| Some((source, buffer::packed_buffer(source)?)))
                .next(),
        )
    };
    if let Some((weight, buffer)) = packed {
        let takes = product::takes(tier(), tensor);
        // A buffer without memory: llama.cpp looks for a place for the weight.
        // Else the weight is with us already, and what we don't compute with
        // it is computed by ggml (graph.rs).
        if buffer.size == 0 {
            report::count(weight.type_, takes);
            return takes;
        }
        if takes {
            return true;
        }
    }
    // SAFETY: passed on.
    unsafe { (originals().supports_op)(device, op) }
}

unsafe extern "C" fn init_backend(device: *mut Device, params: *const c_char) -> *mut Backend {
    // SAFETY: passed on; a new backend is used by nobody else.
    unsafe {
        let backend = (originals().init_backend)(device, params);
        if !backend.is_null() {
            graph::wrap(backend);
        }
        backend
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_versions_are_refused() {
        let ggml = std::ffi::CString::new(GGML_VERSION).unwrap();
        assert_eq!(check_versions(&ggml, API_VERSION), Ok(()));
        let reason = check_versions(c"0.0.1", API_VERSION).unwrap_err();
        assert!(reason.contains("0.0.1"), "{reason}");
        let reason = check_versions(&ggml, API_VERSION + 1).unwrap_err();
        assert!(reason.contains("backends"), "{reason}");
    }
}
