//! Attention of a prompt and of a single token, beside llama.cpp's.

use llama_cpp_sys_2 as sys;

use super::{Bench, Random, error, judge, write};

/// Types of caches to compare.
const TYPES: [sys::ggml_type; 2] = [sys::GGML_TYPE_F16, sys::GGML_TYPE_Q8_0];

/// Length of queries, keys and values; query heads, which share a key head.
const DIM: usize = 64;
const HEADS: usize = 3;

/// Cells of the cache, and query tokens at its end: one that follows a text,
/// and a prompt.
const CELLS: usize = 96;
const TOKENS: [usize; 2] = [1, 20];

/// llama.cpp rounds queries to the cache's type, and sums to F16: the squared
/// error is about 2e-6 of the square of the results.
const TOLERANCE: f64 = 5e-5;

const VISIBLE: u16 = 0;
const HIDDEN: u16 = 0xfc00;

pub(super) fn run(bench: &Bench) -> Result<(), String> {
    for kind in TYPES {
        for tokens in TOKENS {
            let error = compare(bench, kind, tokens)?;
            judge(error, TOLERANCE, "attention over a cache of", kind)?;
        }
    }
    Ok(())
}

fn compare(bench: &Bench, kind: sys::ggml_type, tokens: usize) -> Result<f64, String> {
    let mut random = Random(kind * 32 + tokens as u32 + 1);
    let mask: Vec<u16> = (0..tokens * CELLS)
        .map(|i| match i % CELLS <= CELLS - tokens + i / CELLS {
            true => VISIBLE,
            false => HIDDEN,
        })
        .collect();
    let (packed, plain) = (bench.tensors()?, bench.tensors()?);
    // SAFETY: tensors of these contexts, which get their memory before it is
    // written, and are freed after it.
    unsafe {
        let tensor = |kind, inner: usize, rows: usize, heads: usize| {
            sys::ggml_new_tensor_3d(plain.0, kind, inner as i64, rows as i64, heads as i64)
        };
        let query = tensor(sys::GGML_TYPE_F32, DIM, tokens, HEADS);
        let [key, value] = [(); 2].map(|()| tensor(kind, DIM, CELLS, 1));
        let masks = tensor(sys::GGML_TYPE_F16, CELLS, tokens, 1);
        let attention = || {
            let scale = 1.0 / (DIM as f32).sqrt();
            sys::ggml_flash_attn_ext(plain.0, query, key, value, masks, scale, 0.0, 0.0)
        };
        let (ours, theirs) = (attention(), attention());
        // Ours is computed in graphs with a packed weight.
        let weight = sys::ggml_new_tensor_2d(packed.0, sys::GGML_TYPE_Q8_0, DIM as i64, 32);
        let product = sys::ggml_mul_mat(plain.0, weight, query);
        let _memory = (bench.memory(&packed, true)?, bench.memory(&plain, false)?);
        write(weight, &random.rows(sys::GGML_TYPE_Q8_0, 32, DIM));
        write(query, &random.rows(sys::GGML_TYPE_F32, tokens * HEADS, DIM));
        write(key, &random.rows(kind, CELLS, DIM));
        write(value, &random.rows(kind, CELLS, DIM));
        write(masks, &mask);
        bench.compute(&plain, &[product, ours])?;
        bench.compute(&plain, &[theirs])?;
        Ok(error(ours, theirs))
    }
}
