//! Products of random matrices, ours beside llama.cpp's: all types, with odd
//! shapes, and with the weights of experts.

use std::ptr::{null, null_mut};

use llama_cpp_sys_2 as sys;

use crate::llama::start;

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

/// A CPU backend, two sets of weights, and a graph on them.
struct Bench {
    backend: sys::ggml_backend_t,
    /// 0: in our buffers, 1: in llama.cpp's, 2: everything else.
    contexts: [*mut sys::ggml_context; 3],
    buffers: Vec<sys::ggml_backend_buffer_t>,
    graph: *mut sys::ggml_cgraph,
    random: fastrand::Rng,
}

impl Bench {
    fn new(seed: u64, threads: i32) -> Bench {
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
    fn weights(&self, kind: sys::ggml_type, ne: [i64; 3]) -> [*mut sys::ggml_tensor; 2] {
        let tensor = |context| unsafe {
            match ne[2] {
                1 => sys::ggml_new_tensor_2d(context, kind, ne[0], ne[1]),
                _ => sys::ggml_new_tensor_3d(context, kind, ne[0], ne[1], ne[2]),
            }
        };
        [tensor(self.contexts[0]), tensor(self.contexts[1])]
    }

    fn inputs(&self, ne: [i64; 3]) -> *mut sys::ggml_tensor {
        unsafe {
            sys::ggml_new_tensor_3d(self.contexts[2], sys::GGML_TYPE_F32, ne[0], ne[1], ne[2])
        }
    }

    fn allocate(&mut self) {
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

    fn numbers(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.random.f32() * 2.0 - 1.0).collect()
    }

    /// Fills both with the same random weights.
    fn fill_weights(&mut self, weights: [*mut sys::ggml_tensor; 2]) -> Vec<u8> {
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

    fn fill_inputs(&mut self, tensor: *mut sys::ggml_tensor) {
        unsafe {
            let bytes = sys::ggml_nbytes(tensor);
            let values = self.numbers(bytes / 4);
            sys::ggml_backend_tensor_set(tensor, values.as_ptr().cast(), 0, bytes);
        }
    }

    fn compute(&self, results: &[*mut sys::ggml_tensor]) {
        unsafe {
            for result in results {
                sys::ggml_build_forward_expand(self.graph, *result);
            }
            self.compute_again();
        }
    }

    fn compute_again(&self) {
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

fn read(tensor: *mut sys::ggml_tensor) -> Vec<f32> {
    unsafe {
        let bytes = sys::ggml_nbytes(tensor);
        let mut values = vec![0_f32; bytes / 4];
        sys::ggml_backend_tensor_get(tensor, values.as_mut_ptr().cast(), 0, bytes);
        values
    }
}

/// The squared difference as a part of the square of `theirs`.
fn error(ours: *mut sys::ggml_tensor, theirs: *mut sys::ggml_tensor) -> f64 {
    let (ours, theirs) = (read(ours), read(theirs));
    assert_eq!(ours.len(), theirs.len());
    let square = |x: f32| f64::from(x).powi(2);
    let difference: f64 = ours.iter().zip(&theirs).map(|(a, b)| square(a - b)).sum();
    difference / theirs.iter().copied().map(square).sum::<f64>()
}

/// Of the rounding of activations to 8 bits, which both do.
const TOLERANCE: f64 = 2e-4;

#[test]
fn products_are_those_of_llama_cpp() {
    let mut random = fastrand::Rng::with_seed(1);
    for kind in TYPES {
        for rows in [1, 2, 4, 5, 31, 70] {
            let threads = random.i32(1..=4);
            let mut bench = Bench::new(random.u64(..), threads);
            // 1056 is 33 groups; 1041 leaves 17 of the last.
            let outputs = *random.choice(&[32, 96, 1056, 1041]).unwrap();
            let weights = bench.weights(kind, [512, outputs, 1]);
            let inputs = bench.inputs([512, rows, 1]);
            let results =
                weights.map(|w| unsafe { sys::ggml_mul_mat(bench.contexts[2], w, inputs) });
            bench.allocate();
            bench.fill_weights(weights);
            bench.fill_inputs(inputs);
            bench.compute(&results);
            let error = error(results[0], results[1]);
            assert!(
                error < TOLERANCE,
                "type {kind}, {rows} rows, {outputs} outputs: {error:e}"
            );
        }
    }
}

#[test]
fn experts_are_those_of_llama_cpp() {
    let mut random = fastrand::Rng::with_seed(2);
    for kind in TYPES {
        for (tokens, shared_inputs) in [(1, true), (1, false), (3, false), (40, true), (40, false)]
        {
            let mut bench = Bench::new(random.u64(..), random.i32(1..=4));
            let (experts, used, cols, outputs) = (6, 2, 256, 96);
            let weights = bench.weights(kind, [cols, outputs, experts]);
            let inputs = bench.inputs([cols, if shared_inputs { 1 } else { used }, tokens]);
            let ids = unsafe {
                sys::ggml_new_tensor_2d(bench.contexts[2], sys::GGML_TYPE_I32, used, tokens)
            };
            let results =
                weights.map(|w| unsafe { sys::ggml_mul_mat_id(bench.contexts[2], w, inputs, ids) });
            bench.allocate();
            bench.fill_weights(weights);
            bench.fill_inputs(inputs);
            let chosen: Vec<i32> = (0..used * tokens)
                .map(|_| random.i32(0..experts as i32))
                .collect();
            unsafe {
                sys::ggml_backend_tensor_set(ids, chosen.as_ptr().cast(), 0, 4 * chosen.len());
            }
            bench.compute(&results);
            let error = error(results[0], results[1]);
            assert!(error < TOLERANCE, "type {kind}, {tokens} tokens: {error:e}");
        }
    }
}

#[test]
fn inputs_may_change_between_products() {
    // Both products read the same tensor, which is doubled in place between
    // them: the second must not take the quantized rows of the first.
    for rows in [2, 20] {
        let mut bench = Bench::new(3, 2);
        let weights = bench.weights(sys::GGML_TYPE_Q8_0, [256, 64, 1]);
        let inputs = bench.inputs([256, rows, 1]);
        let context = bench.contexts[2];
        let results = unsafe {
            let before = sys::ggml_mul_mat(context, weights[0], inputs);
            let doubled = sys::ggml_scale_inplace(context, inputs, 2.0);
            let after = sys::ggml_mul_mat(context, weights[0], inputs);
            [before, doubled, after]
        };
        bench.allocate();
        bench.fill_weights(weights);
        bench.fill_inputs(inputs);
        bench.compute(&results);
        let [before, _, after] = results.map(read);
        for (before, after) in before.iter().zip(&after) {
            assert!((2.0 * before - after).abs() < 1e-3 * before.abs().max(1.0));
        }
    }
}

#[test]
fn what_is_not_ours_gets_the_weights_as_they_were() {
    // ggml has to look up rows of a matrix that is packed.
    let mut bench = Bench::new(4, 2);
    let weights = bench.weights(sys::GGML_TYPE_Q4_1, [256, 64, 1]);
    let inputs = bench.inputs([256, 3, 1]);
    let context = bench.contexts[2];
    let rows = unsafe { sys::ggml_new_tensor_1d(context, sys::GGML_TYPE_I32, 3) };
    let looked_up = weights.map(|w| unsafe { sys::ggml_get_rows(context, w, rows) });
    let products = weights.map(|w| unsafe { sys::ggml_mul_mat(context, w, inputs) });
    bench.allocate();
    bench.fill_weights(weights);
    bench.fill_inputs(inputs);
    let wanted = [5_i32, 0, 63];
    unsafe { sys::ggml_backend_tensor_set(rows, wanted.as_ptr().cast(), 0, 12) };
    bench.compute(&[looked_up[0], looked_up[1], products[0], products[1]]);
    for _ in 0..2 {
        assert_eq!(read(looked_up[0]), read(looked_up[1]));
        assert!(error(products[0], products[1]) < TOLERANCE);
        bench.compute_again();
    }
}

#[test]
fn weights_can_be_read_back_and_written_in_parts() {
    for kind in TYPES {
        for ne in [[512, 96, 1], [256, 1041, 1], [256, 64, 3]] {
            let mut bench = Bench::new(5, 1);
            let weights = bench.weights(kind, ne);
            bench.allocate();
            let bytes = bench.fill_weights(weights);
            let mut found = vec![0_u8; bytes.len()];
            unsafe {
                sys::ggml_backend_buffer_clear(bench.buffers[0], 0);
                let (first, second) = bytes.split_at(bytes.len() / 2 + 3);
                for (start, part) in [(0, first), (first.len(), second)] {
                    let data = part.as_ptr().cast();
                    sys::ggml_backend_tensor_set(weights[0], data, start, part.len());
                }
                let target = found.as_mut_ptr().cast();
                sys::ggml_backend_tensor_get(weights[0], target, 0, bytes.len());
            }
            assert!(found == bytes, "type {kind}, {ne:?}");
        }
    }
}
