//! What a mixture of experts needs of its weights: a product with the experts
//! that each token has chosen, and, as of all weights that are packed, a read
//! by an operation of ggml's.

use llama_cpp_sys_2 as sys;

use super::{Bench, Random, error, judge, write};

/// Weights of each expert, and values of a row.
const OUTPUTS: usize = 32;
const INNER: usize = 64;

/// Experts, and how many of them a token has chosen.
const EXPERTS: usize = 4;
const USED: usize = 2;

/// Enough that threads share the rows.
const TOKENS: usize = 5;

const KIND: sys::ggml_type = sys::GGML_TYPE_Q8_0;

/// As that of products.
const TOLERANCE: f64 = 5e-4;

pub(super) fn run(bench: &Bench) -> Result<(), String> {
    let mut random = Random(1);
    let (packed, plain) = (bench.tensors()?, bench.tensors()?);
    // SAFETY: tensors of these contexts, which get their memory before it is
    // written, and are freed after it.
    unsafe {
        let experts = [packed.0, plain.0].map(|context| {
            sys::ggml_new_tensor_3d(context, KIND, INNER as i64, OUTPUTS as i64, EXPERTS as i64)
        });
        let ids = sys::ggml_new_tensor_2d(plain.0, sys::GGML_TYPE_I32, USED as i64, TOKENS as i64);
        let inputs =
            sys::ggml_new_tensor_3d(plain.0, sys::GGML_TYPE_F32, INNER as i64, 1, TOKENS as i64);
        let rows = sys::ggml_new_tensor_2d(plain.0, sys::GGML_TYPE_I32, 3, EXPERTS as i64);
        let products = experts.map(|weights| sys::ggml_mul_mat_id(plain.0, weights, inputs, ids));
        let reads = experts.map(|weights| sys::ggml_get_rows(plain.0, weights, rows));
        let _memory = (bench.memory(&packed, true)?, bench.memory(&plain, false)?);
        let values = random.rows(KIND, EXPERTS * OUTPUTS, INNER);
        for weights in experts {
            write(weights, &values);
        }
        let chosen: [i32; USED * TOKENS] = std::array::from_fn(|i| (i * 3 % EXPERTS) as i32);
        write(ids, &chosen);
        write(inputs, &random.rows(sys::GGML_TYPE_F32, TOKENS, INNER));
        let wanted: [i32; 3 * EXPERTS] = std::array::from_fn(|i| (i * 7 % OUTPUTS) as i32);
        write(rows, &wanted);
        bench.compute(&plain, &[products, reads].concat())?;
        let [ours, theirs] = products;
        judge(error(ours, theirs), TOLERANCE, "experts of", KIND)?;
        let [ours, theirs] = reads;
        judge(
            error(ours, theirs),
            0.0,
            "packed weights that are read of",
            KIND,
        )
    }
}
