//! Attention of a prompt and of a single token, plain and with all that a model
//! may add, beside llama.cpp's.

use llama_cpp_sys_2 as sys;

use super::{Bench, Random, error, judge, write};

/// Nodes to compare.
#[derive(Clone, Copy)]
struct Case {
    /// Type of the cache.
    kind: sys::ggml_type,
    /// Length of queries, keys and values.
    dim: usize,
    /// Whether there are a cap of scores, sinks, and a bias by distance.
    extras: bool,
}

const CASES: [Case; 3] = [
    Case {
        kind: sys::GGML_TYPE_F16,
        dim: 64,
        extras: false,
    },
    Case {
        kind: sys::GGML_TYPE_Q8_0,
        dim: 64,
        extras: false,
    },
    Case {
        kind: sys::GGML_TYPE_F16,
        dim: 128,
        extras: true,
    },
];

/// Query heads, which share a key head.
const HEADS: usize = 3;

/// Cells of the cache, and query tokens at its end: one that follows a text,
/// whose cells are so many that threads share them, and a prompt.
const CELLS: usize = 128;
const TOKENS: [usize; 2] = [1, 20];

/// Near most scores, so that it bends them.
const SOFT_CAP: f32 = 0.25;

/// As much as many cells.
const SINKS: [f32; HEADS] = [3.0, 4.0, 5.0];

/// Of which ggml makes a slope for each head.
const MAX_BIAS: f32 = 4.0;

/// llama.cpp rounds queries to the cache's type, and sums to F16: the squared
/// error is about 2e-6 of the square of the results.
const TOLERANCE: f64 = 5e-5;

const VISIBLE: u16 = 0;
const HIDDEN: u16 = 0xfc00;
/// -1
const FAR: u16 = 0xbc00;

pub(super) fn run(bench: &Bench) -> Result<(), String> {
    for case in CASES {
        for tokens in TOKENS {
            let error = compare(bench, case, tokens)?;
            judge(error, TOLERANCE, "attention over a cache of", case.kind)?;
        }
    }
    Ok(())
}

fn compare(bench: &Bench, case: Case, tokens: usize) -> Result<f64, String> {
    let Case { kind, dim, extras } = case;
    let mut random = Random(kind * 32 + tokens as u32 + 1);
    let mask: Vec<u16> = (0..tokens * CELLS)
        .map(|i| match i % CELLS <= CELLS - tokens + i / CELLS {
            true if extras && i % CELLS < CELLS / 3 => FAR,
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
        let query = tensor(sys::GGML_TYPE_F32, dim, tokens, HEADS);
        let [key, value] = [(); 2].map(|()| tensor(kind, dim, CELLS, 1));
        let sinks = tensor(sys::GGML_TYPE_F32, HEADS, 1, 1);
        let masks = tensor(sys::GGML_TYPE_F16, CELLS, tokens, 1);
        let attention = || {
            let scale = 1.0 / (dim as f32).sqrt();
            let (bias, cap) = if extras {
                (MAX_BIAS, SOFT_CAP)
            } else {
                (0.0, 0.0)
            };
            let node =
                sys::ggml_flash_attn_ext(plain.0, query, key, value, masks, scale, bias, cap);
            if extras {
                sys::ggml_flash_attn_ext_add_sinks(node, sinks);
            }
            node
        };
        let (ours, theirs) = (attention(), attention());
        // Ours is computed in graphs with a packed weight.
        let weight = sys::ggml_new_tensor_2d(packed.0, sys::GGML_TYPE_Q8_0, dim as i64, 32);
        let product = sys::ggml_mul_mat(plain.0, weight, query);
        let _memory = (bench.memory(&packed, true)?, bench.memory(&plain, false)?);
        write(weight, &random.rows(sys::GGML_TYPE_Q8_0, 32, dim));
        write(query, &random.rows(sys::GGML_TYPE_F32, tokens * HEADS, dim));
        write(key, &random.rows(kind, CELLS, dim));
        write(value, &random.rows(kind, CELLS, dim));
        write(sinks, &SINKS);
        write(masks, &mask);
        bench.compute(&plain, &[product, ours])?;
        bench.compute(&plain, &[theirs])?;
        Ok(error(ours, theirs))
    }
}
