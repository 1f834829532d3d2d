//! Products of all types, beside llama.cpp's in the same graph.

use llama_cpp_sys_2 as sys;

use super::{Bench, Random, error, judge, write};

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

/// Weight matrices of 64 rows and 256 columns.
const OUTPUTS: usize = 64;
const INNER: usize = 256;

/// Activation rows: few, and some more.
const ROWS: [usize; 2] = [1, 7];

/// Both sides round activations to 8 bits, in their own ways: the squared
/// error is about 3e-5 of the square of the results.
const TOLERANCE: f64 = 5e-4;

pub(super) fn run(bench: &Bench) -> Result<(), String> {
    for kind in TYPES {
        for error in compare(bench, kind)? {
            judge(error, TOLERANCE, "products of", kind)?;
        }
    }
    Ok(())
}

/// The errors for each of [`ROWS`].
fn compare(bench: &Bench, kind: sys::ggml_type) -> Result<[f64; 2], String> {
    let mut random = Random(kind + 1);
    // Half of the rows, and the same from the second on: quantizing is slow.
    let mut quantized = random.rows(kind, OUTPUTS / 2, INNER);
    quantized.extend_from_within(..);
    let half = quantized.len() / 2;
    quantized[half..].rotate_left(half / (OUTPUTS / 2));
    let (packed, plain) = (bench.tensors()?, bench.tensors()?);
    // SAFETY: tensors of these contexts, which get their memory before it is
    // written, and are freed after it.
    unsafe {
        let matrix = |context: *mut sys::ggml_context, kind, rows| {
            sys::ggml_new_tensor_2d(context, kind, INNER as i64, rows as i64)
        };
        let packed_weights = matrix(packed.0, kind, OUTPUTS);
        let plain_weights = matrix(plain.0, kind, OUTPUTS);
        let inputs = ROWS.map(|rows| matrix(plain.0, sys::GGML_TYPE_F32, rows));
        let products = inputs.map(|input| {
            [packed_weights, plain_weights]
                .map(|weights| sys::ggml_mul_mat(plain.0, weights, input))
        });
        let _memory = (bench.memory(&packed, true)?, bench.memory(&plain, false)?);
        write(packed_weights, &quantized);
        write(plain_weights, &quantized);
        for (input, rows) in inputs.into_iter().zip(ROWS) {
            write(input, &random.rows(sys::GGML_TYPE_F32, rows, INNER));
        }
        bench.compute(&plain, products.as_flattened())?;
        Ok(products.map(|[ours, theirs]| error(ours, theirs)))
    }
}
