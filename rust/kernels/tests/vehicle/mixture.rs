//! A small random model whose layers are mixtures of experts, with our kernels
//! and without.

use std::ffi::CString;
use std::path::Path;

use llama_cpp_sys_2 as sys;

use crate::llama::{Context, Model, divergence, start};

const LAYERS: u32 = 2;
const WIDTH: i64 = 256;
const VOCABULARY: i64 = 512;
const EXPERTS: i64 = 4;

/// Queries, keys, values, their sum, and three products of experts.
const PRODUCTS: usize = 7;

/// Writes the model. It has no words, only the number of them.
fn write(file: &Path) {
    start();
    let file = CString::new(file.to_str().unwrap()).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    unsafe {
        let gguf = sys::gguf_init_empty();
        for (key, value) in [
            (c"general.architecture", c"llama"),
            (c"tokenizer.ggml.model", c"no_vocab"),
        ] {
            sys::gguf_set_val_str(gguf, key.as_ptr(), value.as_ptr());
        }
        for (key, value) in [
            (c"llama.vocab_size", VOCABULARY as u32),
            (c"llama.context_length", 4096),
            (c"llama.embedding_length", WIDTH as u32),
            (c"llama.block_count", LAYERS),
            (c"llama.feed_forward_length", WIDTH as u32),
            (c"llama.attention.head_count", 4),
            (c"llama.expert_count", EXPERTS as u32),
            (c"llama.expert_used_count", 2),
        ] {
            sys::gguf_set_val_u32(gguf, key.as_ptr(), value);
        }
        let epsilon = c"llama.attention.layer_norm_rms_epsilon";
        sys::gguf_set_val_f32(gguf, epsilon.as_ptr(), 1e-5);
        let context = sys::ggml_init(sys::ggml_init_params {
            mem_size: 16 << 20,
            mem_buffer: std::ptr::null_mut(),
            no_alloc: false,
        });
        let mut tensor = |name: &str, kind, ne: [i64; 3]| {
            let tensor = sys::ggml_new_tensor_3d(context, kind, ne[0], ne[1], ne[2]);
            let name = CString::new(format!("{name}.weight")).unwrap();
            sys::ggml_set_name(tensor, name.as_ptr());
            let rows = ne[1] * ne[2];
            let values: Vec<f32> = (0..ne[0] * rows)
                .map(|_| random.f32() / 2.0 - 0.25)
                .collect();
            let (from, to) = (values.as_ptr(), (*tensor).data);
            sys::ggml_quantize_chunk(kind, from, to, 0, rows, ne[0], std::ptr::null());
            sys::gguf_add_tensor(gguf, tensor);
        };
        let (plain, packed) = (sys::GGML_TYPE_F32, sys::GGML_TYPE_Q8_0);
        tensor("token_embd", packed, [WIDTH, VOCABULARY, 1]);
        tensor("output_norm", plain, [WIDTH, 1, 1]);
        tensor("output", packed, [WIDTH, VOCABULARY, 1]);
        for layer in 0..LAYERS {
            let mut part = |name, kind, ne| tensor(&format!("blk.{layer}.{name}"), kind, ne);
            for name in ["attn_norm", "ffn_norm"] {
                part(name, plain, [WIDTH, 1, 1]);
            }
            for name in ["attn_q", "attn_k", "attn_v", "attn_output"] {
                part(name, packed, [WIDTH, WIDTH, 1]);
            }
            part("ffn_gate_inp", plain, [WIDTH, EXPERTS, 1]);
            for name in ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"] {
                part(name, packed, [WIDTH, WIDTH, EXPERTS]);
            }
        }
        assert!(sys::gguf_write_to_file(gguf, file.as_ptr(), false));
        sys::gguf_free(gguf);
        sys::ggml_free(context);
    }
}

#[test]
fn a_mixture_of_experts_is_as_without_our_kernels() {
    let file = std::env::temp_dir().join(format!("llm-kernels-moe-{}.gguf", std::process::id()));
    write(&file);
    let (stock, _) = Model::load(&file, false, true);
    let (ours, report) = Model::load(&file, true, true);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(report.taken["q8_0"], LAYERS as usize * PRODUCTS + 1);

    let tokens: Vec<i32> = (0..40).map(|i| i * 37 % VOCABULARY as i32).collect();
    let (prompt, steps) = tokens.split_at(36);
    let [expected, found, other] = [(&stock, prompt), (&ours, prompt), (&stock, &tokens[1..37])]
        .map(|(model, prompt)| {
            let mut context = Context::new(model, 2);
            let mut logits = context.decode(prompt, 0);
            for (i, step) in steps.iter().enumerate() {
                logits.extend(context.decode(std::slice::from_ref(step), prompt.len() + i));
            }
            logits
        });
    let kl = divergence(&expected, &found);
    let changed = divergence(&expected, &other);
    // It is 5e-6 of 2e-2.
    assert!(kl < changed / 100.0, "{kl}, of another text {changed}");
}
