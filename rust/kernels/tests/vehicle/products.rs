//! Products of random matrices, ours beside llama.cpp's: all types, with odd
//! shapes, and with the weights of experts.

use llama_cpp_sys_2 as sys;

use crate::bench::{Bench, error, read};

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

/// Of the rounding of activations to 8 bits, which both do.
const TOLERANCE: f64 = 2e-4;

#[test]
fn products_are_those_of_llama_cpp() {
    let mut random = fastrand::Rng::with_seed(1);
    for kind in TYPES {
        for rows in [1, 2, 4, 5, 31, 70] {
            let threads = random.i32(1..=8);
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
            let mut bench = Bench::new(random.u64(..), random.i32(1..=8));
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
