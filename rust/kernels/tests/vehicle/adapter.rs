//! A LoRA adapter of random numbers.

use std::ffi::CString;
use std::path::Path;

use llama_cpp_sys_2 as sys;

use crate::llama::{Model, divergence};

const RANK: i64 = 4;

/// Writes an adapter that changes the queries of the first layers. The model
/// is one whose queries are as long as its rows.
pub fn write(file: &Path, model: &Model) {
    let width: i64 = model.value(c"llama.embedding_length").parse().unwrap();
    let file = CString::new(file.to_str().unwrap()).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    unsafe {
        let gguf = sys::gguf_init_empty();
        for (key, value) in [
            (c"general.type", c"adapter"),
            (c"general.architecture", c"llama"),
            (c"adapter.type", c"lora"),
        ] {
            sys::gguf_set_val_str(gguf, key.as_ptr(), value.as_ptr());
        }
        sys::gguf_set_val_f32(gguf, c"adapter.lora.alpha".as_ptr(), RANK as f32);
        let context = sys::ggml_init(sys::ggml_init_params {
            mem_size: 16 << 20,
            mem_buffer: std::ptr::null_mut(),
            no_alloc: false,
        });
        for layer in 0..8 {
            for (part, ne) in [("a", [width, RANK]), ("b", [RANK, width])] {
                let kind = sys::GGML_TYPE_F32;
                let tensor = sys::ggml_new_tensor_2d(context, kind, ne[0], ne[1]);
                let name = format!("blk.{layer}.attn_q.weight.lora_{part}");
                sys::ggml_set_name(tensor, CString::new(name).unwrap().as_ptr());
                let data = (*tensor).data.cast::<f32>();
                for i in 0..(width * RANK) as usize {
                    *data.add(i) = 1.4 * (random.f32() - 0.5);
                }
                sys::gguf_add_tensor(gguf, tensor);
            }
        }
        assert!(sys::gguf_write_to_file(gguf, file.as_ptr(), false));
        sys::gguf_free(gguf);
        sys::ggml_free(context);
    }
}

/// Asserts that logits with the adapter are those that llama.cpp's kernels find
/// with it, which without it find `before`.
pub fn assert_applied(before: &[Vec<f32>], expected: &[Vec<f32>], found: &[Vec<f32>]) {
    // Random changes make a model sensitive to rounding.
    let changed = divergence(before, expected);
    assert!(
        changed > 0.1,
        "the adapter changes next to nothing: {changed}"
    );
    let kl = divergence(expected, found);
    assert!(
        kl < changed / 4.0,
        "{kl} with the adapter, which changes {changed}"
    );
}
