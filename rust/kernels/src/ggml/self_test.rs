//! A few products, experts, layers and attention nodes of our kernels beside
//! those of llama.cpp, before any model depends on ours.

mod attention;
mod experts;
mod layers;
mod products;

use llama_cpp_sys_2 as sys;

use super::bindings::{Device, Graph};
use super::buffer::buffer_type;
use super::hooks;

/// Compares; an error names the first that differs.
pub(super) fn run(device: *mut Device) -> Result<(), String> {
    let bench = Bench::new(device)?;
    products::run(&bench)?;
    experts::run(&bench)?;
    layers::run(&bench)?;
    attention::run(&bench)
}

/// Threads share rows to quantize, outputs and cells, and wait for each other.
/// ggml starts them for each graph, so there are no more.
const THREADS: i32 = 2;

/// A CPU backend.
struct Bench {
    device: *mut Device,
    backend: Owned<sys::ggml_backend>,
}

fn failed(what: &str) -> String {
    format!("{what} failed")
}

impl Bench {
    fn new(device: *mut Device) -> Result<Bench, String> {
        // SAFETY: the device of `hooks`; the backend computes nothing yet.
        unsafe {
            let backend = sys::ggml_backend_dev_init(device.cast(), std::ptr::null());
            let backend = Owned::new(backend, sys::ggml_backend_free).ok_or(failed("a backend"))?;
            hooks::set_threads(backend.0.cast(), THREADS);
            Ok(Bench { device, backend })
        }
    }

    /// A place for a few tensors and a graph.
    fn tensors(&self) -> Result<Owned<sys::ggml_context>, String> {
        let params = sys::ggml_init_params {
            // SAFETY: both only compute sizes.
            mem_size: unsafe { 32 * sys::ggml_tensor_overhead() + 2 * sys::ggml_graph_overhead() },
            mem_buffer: std::ptr::null_mut(),
            no_alloc: true,
        };
        // SAFETY: nothing is asked for.
        let context = unsafe { sys::ggml_init(params) };
        Owned::new(context, sys::ggml_free).ok_or(failed("ggml_init"))
    }

    /// Gives tensors their memory: ours, or ggml's.
    fn memory(
        &self,
        tensors: &Owned<sys::ggml_context>,
        packed: bool,
    ) -> Result<Owned<sys::ggml_backend_buffer>, String> {
        // SAFETY: the context's tensors have no memory yet.
        let buffer = unsafe {
            let buffer_type = match packed {
                true => buffer_type(self.device).cast(),
                false => sys::ggml_backend_dev_buffer_type(self.device.cast()),
            };
            sys::ggml_backend_alloc_ctx_tensors_from_buft(tensors.0, buffer_type)
        };
        Owned::new(buffer, sys::ggml_backend_buffer_free).ok_or(failed("a buffer"))
    }

    /// Computes a graph of these nodes.
    ///
    /// # Safety
    /// They are tensors of this context, and have their memory.
    unsafe fn compute(
        &self,
        tensors: &Owned<sys::ggml_context>,
        nodes: &[*mut sys::ggml_tensor],
    ) -> Result<(), String> {
        // SAFETY: as the caller promises.
        let status = unsafe {
            let graph = sys::ggml_new_graph_custom(tensors.0, 32, false);
            for node in nodes {
                sys::ggml_build_forward_expand(graph, *node);
            }
            if !Graph::is_known(graph) {
                return Err("ggml's graphs are not those known".into());
            }
            sys::ggml_backend_graph_compute(self.backend.0, graph)
        };
        match status {
            sys::GGML_STATUS_SUCCESS => Ok(()),
            _ => Err(failed("a graph")),
        }
    }
}

/// Writes a tensor.
///
/// # Safety
/// It has its memory, of so many bytes.
unsafe fn write<T>(tensor: *mut sys::ggml_tensor, values: &[T]) {
    // SAFETY: as the caller promises.
    unsafe {
        let bytes = size_of_val(values);
        sys::ggml_backend_tensor_set(tensor, values.as_ptr().cast(), 0, bytes);
    }
}

/// The squared error of our tensor, as a part of the square of llama.cpp's.
///
/// # Safety
/// Both are f32, have their memory, and as many values.
unsafe fn error(ours: *mut sys::ggml_tensor, theirs: *mut sys::ggml_tensor) -> f64 {
    // SAFETY: as the caller promises.
    let read = |tensor| unsafe {
        let bytes = sys::ggml_nbytes(tensor);
        let mut values = vec![0_f32; bytes / 4];
        sys::ggml_backend_tensor_get(tensor, values.as_mut_ptr().cast(), 0, bytes);
        values
    };
    let squares = |values: &mut dyn Iterator<Item = f32>| -> f64 {
        values.map(|value| f64::from(value).powi(2)).sum()
    };
    let (ours, theirs) = (read(ours), read(theirs));
    let error = squares(&mut ours.iter().zip(&theirs).map(|(a, b)| a - b));
    error / squares(&mut theirs.into_iter())
}

/// `Err` if an error is larger than it may be. `what` names what was compared.
fn judge(error: f64, tolerance: f64, what: &str, kind: sys::ggml_type) -> Result<(), String> {
    if error <= tolerance {
        return Ok(());
    }
    // SAFETY: names of types are static strings.
    let name = unsafe { std::ffi::CStr::from_ptr(sys::ggml_type_name(kind)) };
    Err(format!(
        "{what} {} differ from llama.cpp's: squared error {error:.1e}",
        name.to_string_lossy()
    ))
}

/// A ggml object, freed at its end.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    fn new(object: *mut T, free: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        (!object.is_null()).then_some(Owned(object, free))
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: owned by this alone.
        unsafe { (self.1)(self.0) }
    }
}

/// A small generator of numbers between -1 and 1 (xorshift).
struct Random(u32);

impl Random {
    fn next(&mut self) -> f32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 as f32 / (1_u32 << 31) as f32 - 1.0
    }

    /// So many rows of `inner` numbers, in bytes of type `kind`.
    fn rows(&mut self, kind: sys::ggml_type, rows: usize, inner: usize) -> Vec<u8> {
        let values: Vec<f32> = (0..rows * inner).map(|_| self.next()).collect();
        // SAFETY: the bytes of so many rows.
        unsafe {
            let mut bytes = vec![0_u8; rows * sys::ggml_row_size(kind, inner as i64)];
            let (from, to) = (values.as_ptr(), bytes.as_mut_ptr().cast());
            let (rows, inner) = (rows as i64, inner as i64);
            sys::ggml_quantize_chunk(kind, from, to, 0, rows, inner, std::ptr::null());
            bytes
        }
    }
}
