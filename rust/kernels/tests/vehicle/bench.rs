//! Graphs of random matrices: with weights in our buffers, and in llama.cpp's.

use std::ptr::{null, null_mut};

use llama_cpp_sys_2 as sys;

use crate::llama::start;

/// A CPU backend, two sets of weights, and a graph on them.
pub struct Bench {
    backend: sys::ggml_backend_t,
    /// 0: in our buffers, 1: in llama.cpp's, 2: everything else.
    pub contexts: [*mut sys::ggml_context; 3],
    pub buffers: Vec<sys::ggml_backend_buffer_t>,
    graph: *mut sys::ggml_cgraph,
    pub random: fastrand::Rng,
}

impl Bench {
    pub fn new(seed: u64, threads: i32) -> Bench {
        start();
        let context = || unsafe {
            sys::ggml_init(sys::ggml_init_params {
                mem_size: 64 * sys::ggml_tensor_overhead() + sys::ggml_graph_overhead(),
                mem_buffer: null_mut(),
                no_alloc: true,
            })
        };
        let contexts = [context(), context(), context()];
        unsafe {
            let backend = sys::ggml_backend_dev_init(device(), null());
            type SetThreads = unsafe extern "C" fn(sys::ggml_backend_t, i32);
            let registry = sys::ggml_backend_dev_backend_reg(device());
            let name = c"ggml_backend_set_n_threads".as_ptr();
            let set = sys::ggml_backend_reg_get_proc_address(registry, name);
            std::mem::transmute::<*mut std::ffi::c_void, SetThreads>(set)(backend, threads);
            Bench {
                backend,
                contexts,
                buffers: Vec::new(),
                graph: sys::ggml_new_graph(contexts[2]),
                random: fastrand::Rng::with_seed(seed),
            }
        }
    }

    /// The same weights twice: in our buffers and in llama.cpp's.
    pub fn weights(&self, kind: sys::ggml_type, ne: [i64; 3]) -> [*mut sys::ggml_tensor; 2] {
        let tensor = |context| unsafe {
            match ne[2] {
                1 => sys::ggml_new_tensor_2d(context, kind, ne[0], ne[1]),
                _ => sys::ggml_new_tensor_3d(context, kind, ne[0], ne[1], ne[2]),
            }
        };
        [tensor(self.contexts[0]), tensor(self.contexts[1])]
    }

    pub fn inputs(&self, ne: [i64; 3]) -> *mut sys::ggml_tensor {
        unsafe {
            sys::ggml_new_tensor_3d(self.contexts[2], sys::GGML_TYPE_F32, ne[0], ne[1], ne[2])
        }
    }

    pub fn allocate(&mut self) {
        let types = [
            our_buffer_type(),
            default_buffer_type(),
            default_buffer_type(),
        ];
        for (context, buffer_type) in self.contexts.into_iter().zip(types) {
            unsafe {
                if sys::ggml_get_first_tensor(context).is_null() {
                    continue;
                }
                let buffer = sys::ggml_backend_alloc_ctx_tensors_from_buft(context, buffer_type);
                assert!(!buffer.is_null());
                self.buffers.push(buffer);
            }
        }
    }

    pub fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.random.f32() * 2.0 - 1.0).collect()
    }

    /// Fills both with the same random weights.
    pub fn fill_weights(&mut self, weights: [*mut sys::ggml_tensor; 2]) -> Vec<u8> {
        unsafe {
            let tensor = &*weights[0];
            let rows = tensor.ne[1] * tensor.ne[2];
            let values = self.numbers((tensor.ne[0] * rows) as usize);
            let mut bytes = vec![0_u8; sys::ggml_nbytes(tensor)];
            let target = bytes.as_mut_ptr().cast();
            let (kind, cols) = (tensor.type_, tensor.ne[0]);
            sys::ggml_quantize_chunk(kind, values.as_ptr(), target, 0, rows, cols, null());
            for tensor in weights {
                sys::ggml_backend_tensor_set(tensor, bytes.as_ptr().cast(), 0, bytes.len());
            }
            bytes
        }
    }

    pub fn fill_inputs(&mut self, tensor: *mut sys::ggml_tensor) {
        unsafe {
            let bytes = sys::ggml_nbytes(tensor);
            let values = self.numbers(bytes / 4);
            sys::ggml_backend_tensor_set(tensor, values.as_ptr().cast(), 0, bytes);
        }
    }

    pub fn compute(&self, results: &[*mut sys::ggml_tensor]) {
        unsafe {
            for result in results {
                sys::ggml_build_forward_expand(self.graph, *result);
            }
            self.compute_again();
        }
    }

    pub fn compute_again(&self) {
        let status = unsafe { sys::ggml_backend_graph_compute(self.backend, self.graph) };
        assert_eq!(status, sys::GGML_STATUS_SUCCESS);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        unsafe {
            for buffer in &self.buffers {
                sys::ggml_backend_buffer_free(*buffer);
            }
            for context in self.contexts {
                sys::ggml_free(context);
            }
            sys::ggml_backend_free(self.backend);
        }
    }
}

fn device() -> sys::ggml_backend_dev_t {
    unsafe { sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU) }
}

fn default_buffer_type() -> sys::ggml_backend_buffer_type_t {
    unsafe { sys::ggml_backend_dev_buffer_type(device()) }
}

/// The first of the extra buffer types that llama.cpp is offered.
fn our_buffer_type() -> sys::ggml_backend_buffer_type_t {
    type Get =
        unsafe extern "C" fn(sys::ggml_backend_dev_t) -> *mut sys::ggml_backend_buffer_type_t;
    unsafe {
        let registry = sys::ggml_backend_dev_backend_reg(device());
        let name = c"ggml_backend_dev_get_extra_bufts".as_ptr();
        let get = sys::ggml_backend_reg_get_proc_address(registry, name);
        let list = std::mem::transmute::<*mut std::ffi::c_void, Get>(get)(device());
        let name = std::ffi::CStr::from_ptr(sys::ggml_backend_buft_name(*list));
        assert_eq!(name, c"CPU_PACKED");
        *list
    }
}

pub fn read(tensor: *mut sys::ggml_tensor) -> Vec<f32> {
    unsafe {
        let bytes = sys::ggml_nbytes(tensor);
        let mut values = vec![0_f32; bytes / 4];
        sys::ggml_backend_tensor_get(tensor, values.as_mut_ptr().cast(), 0, bytes);
        values
    }
}

/// The squared difference as a part of the square of `theirs`.
pub fn error(ours: *mut sys::ggml_tensor, theirs: *mut sys::ggml_tensor) -> f64 {
    let (ours, theirs) = (read(ours), read(theirs));
    assert_eq!(ours.len(), theirs.len());
    let square = |x: f32| f64::from(x).powi(2);
    let difference: f64 = ours.iter().zip(&theirs).map(|(a, b)| square(a - b)).sum();
    difference / theirs.iter().copied().map(square).sum::<f64>()
}
