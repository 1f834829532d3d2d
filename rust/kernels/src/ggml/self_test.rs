//! A few products of our kernels beside those of llama.cpp, before any model
//! depends on ours.

use llama_cpp_sys_2 as sys;

use super::bindings::Device;
use super::buffer::buffer_type;
use super::hooks;

/// Types to compare.
const TYPES: [sys::ggml_type; 9] = [
    sys::GGML_TYPE_Q4_0,
    sys::GGML_TYPE_Q4_1,
    sys::GGML_TYPE_Q5_0,
    sys::GGML_TYPE_Q5_1,
    sys::GGML_TYPE_Q8_0,
    sys::GGML_TYPE_Q4_K,
    sys::GGML_TYPE_Q5_K,
    sys::GGML_TYPE_Q6_K,
    sys::GGML_TYPE_IQ4_NL,
];

/// Weight matrices of 96 rows and 512 columns.
const OUTPUTS: usize = 96;
const INNER: usize = 512;

/// Activation rows: few, and some more.
const ROWS: [usize; 2] = [1, 7];

/// Both sides round activations to 8 bits, in their own ways: the squared
/// error is about 3e-5 of the square of the results.
const TOLERANCE: f64 = 5e-4;

/// Compares all types; an error names the first that differs.
pub(super) fn run(device: *mut Device) -> Result<(), String> {
    for kind in TYPES {
        for rows in ROWS {
            let error = compare(device, kind, rows)?;
            if error.is_nan() || error > TOLERANCE {
                // SAFETY: names of types are static strings.
                let name = unsafe { std::ffi::CStr::from_ptr(sys::ggml_type_name(kind)) };
                return Err(format!(
                    "products of {} differ from llama.cpp's: squared error {error:.1e}",
                    name.to_string_lossy()
                ));
            }
        }
    }
    Ok(())
}

/// The squared error of our product, as a part of the square of llama.cpp's.
fn compare(device: *mut Device, kind: sys::ggml_type, rows: usize) -> Result<f64, String> {
    let mut random = Random(kind * 8 + rows as u32 + 1);
    let weights: Vec<f32> = (0..OUTPUTS * INNER).map(|_| random.next()).collect();
    let inputs: Vec<f32> = (0..rows * INNER).map(|_| random.next()).collect();
    let failed = |what: &str| format!("{what} failed");
    // SAFETY: ggml objects are made, used and freed in the order that ggml
    // asks for; sizes are those of the tensors.
    unsafe {
        let row_bytes = sys::ggml_row_size(kind, INNER as i64);
        let mut quantized = vec![0_u8; OUTPUTS * row_bytes];
        sys::ggml_quantize_chunk(
            kind,
            weights.as_ptr(),
            quantized.as_mut_ptr().cast(),
            0,
            OUTPUTS as i64,
            INNER as i64,
            std::ptr::null(),
        );
        let backend = sys::ggml_backend_dev_init(device.cast(), std::ptr::null());
        let backend = Owned::new(backend, sys::ggml_backend_free).ok_or(failed("the backend"))?;
        // More would be started and ended for each graph.
        hooks::set_threads(backend.0.cast(), 1);
        let context = || {
            let params = sys::ggml_init_params {
                mem_size: 8 * sys::ggml_tensor_overhead() + sys::ggml_graph_overhead(),
                mem_buffer: std::ptr::null_mut(),
                no_alloc: true,
            };
            Owned::new(sys::ggml_init(params), sys::ggml_free).ok_or(failed("ggml_init"))
        };
        let matrix = |context: &Owned<sys::ggml_context>, kind, rows| {
            sys::ggml_new_tensor_2d(context.0, kind, INNER as i64, rows as i64)
        };
        let buffer = |context: &Owned<sys::ggml_context>, buffer_type| {
            let buffer = sys::ggml_backend_alloc_ctx_tensors_from_buft(context.0, buffer_type);
            Owned::new(buffer, sys::ggml_backend_buffer_free).ok_or(failed("a buffer"))
        };
        let plain_type = sys::ggml_backend_dev_buffer_type(device.cast());

        let packed = context()?;
        let packed_weights = matrix(&packed, kind, OUTPUTS);
        let _packed_buffer = buffer(&packed, buffer_type(device).cast())?;
        let plain = context()?;
        let plain_weights = matrix(&plain, kind, OUTPUTS);
        let input = matrix(&plain, sys::GGML_TYPE_F32, rows);
        let ours = sys::ggml_mul_mat(plain.0, packed_weights, input);
        let theirs = sys::ggml_mul_mat(plain.0, plain_weights, input);
        let _plain_buffer = buffer(&plain, plain_type)?;
        for tensor in [packed_weights, plain_weights] {
            sys::ggml_backend_tensor_set(tensor, quantized.as_ptr().cast(), 0, quantized.len());
        }
        sys::ggml_backend_tensor_set(input, inputs.as_ptr().cast(), 0, size_of_val(&*inputs));

        let graph = sys::ggml_new_graph_custom(plain.0, 8, false);
        sys::ggml_build_forward_expand(graph, ours);
        sys::ggml_build_forward_expand(graph, theirs);
        let status = sys::ggml_backend_graph_compute(backend.0, graph);
        if status != sys::GGML_STATUS_SUCCESS {
            return Err(failed("the graph"));
        }
        let read = |tensor| {
            let mut values = vec![0_f32; rows * OUTPUTS];
            let bytes = size_of_val(&*values);
            sys::ggml_backend_tensor_get(tensor, values.as_mut_ptr().cast(), 0, bytes);
            values
        };
        let squares = |values: &mut dyn Iterator<Item = f32>| -> f64 {
            values.map(|value| f64::from(value).powi(2)).sum()
        };
        let (ours, theirs) = (read(ours), read(theirs));
        let error = squares(&mut ours.iter().zip(&theirs).map(|(a, b)| a - b));
        Ok(error / squares(&mut theirs.into_iter()))
    }
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
}
