//! What is joined to products (a norm, a gate, a sum), beside llama.cpp's.

use llama_cpp_sys_2 as sys;

use super::{Bench, Random, error, judge, write};

/// Values of a row, and of a row between the products.
const INNER: usize = 64;
const HIDDEN: usize = 96;

/// Activation rows: few, and some more.
const ROWS: [usize; 2] = [1, 7];

const KIND: sys::ggml_type = sys::GGML_TYPE_Q8_0;

/// Both sides round activations to 8 bits, twice: the squared error is about
/// 5e-5 of the square of the results.
const TOLERANCE: f64 = 1e-3;

pub(super) fn run(bench: &Bench) -> Result<(), String> {
    for rows in ROWS {
        for gelu in [false, true] {
            let error = compare(bench, rows, gelu)?;
            judge(error, TOLERANCE, "layers of", KIND)?;
        }
    }
    Ok(())
}

fn compare(bench: &Bench, rows: usize, gelu: bool) -> Result<f64, String> {
    let mut random = Random(rows as u32);
    let (packed, plain) = (bench.tensors()?, bench.tensors()?);
    let sizes = [(INNER, HIDDEN), (INNER, HIDDEN), (HIDDEN, INNER)];
    // SAFETY: tensors of these contexts, which get their memory before it is
    // written, and are freed after it.
    unsafe {
        let matrix = |context: *mut sys::ggml_context, kind, (cols, rows): (usize, usize)| {
            sys::ggml_new_tensor_2d(context, kind, cols as i64, rows as i64)
        };
        let weights =
            [packed.0, plain.0].map(|context| sizes.map(|size| matrix(context, KIND, size)));
        let inputs = matrix(plain.0, sys::GGML_TYPE_F32, (INNER, rows));
        let norm_weights = matrix(plain.0, sys::GGML_TYPE_F32, (INNER, 1));
        let [ours, theirs] = weights.map(|[gate, up, down]| {
            let product = |weights, x| sys::ggml_mul_mat(plain.0, weights, x);
            let norm = sys::ggml_rms_norm(plain.0, inputs, 1e-5);
            let norm = sys::ggml_mul(plain.0, norm, norm_weights);
            let (gate, up) = (product(gate, norm), product(up, norm));
            let unit = match gelu {
                true => sys::ggml_geglu_split(plain.0, gate, up),
                false => sys::ggml_swiglu_split(plain.0, gate, up),
            };
            sys::ggml_add(plain.0, product(down, unit), inputs)
        });
        let _memory = (bench.memory(&packed, true)?, bench.memory(&plain, false)?);
        for (index, (cols, rows)) in sizes.into_iter().enumerate() {
            let values = random.rows(KIND, rows, cols);
            for side in weights {
                write(side[index], &values);
            }
        }
        write(inputs, &random.rows(sys::GGML_TYPE_F32, rows, INNER));
        write(norm_weights, &random.rows(sys::GGML_TYPE_F32, 1, INNER));
        bench.compute(&plain, &[ours])?;
        bench.compute(&plain, &[theirs])?;
        Ok(error(ours, theirs))
    }
}
