//! A small model with sliding windows and random weights, the same each time.
//!
//! Of its layers every other one has a window; heads are as long as Gemma's. It
//! is made so that its text tells of mistakes. Attention looks at few cells and
//! has much to say, so one that is missing or wrong moves the logits; words are
//! few, so some go on as they did before, and drafts hold for a while.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use llama_cpp_sys_2 as sys;

use crate::gguf::{Gguf, written};

/// Tokens that layers with a window look back on, the one that looks included.
pub const WINDOW: u32 = 64;

const LAYERS: u32 = 4;
const WIDTH: u32 = 64;
const FEED_FORWARD: u32 = 64;
const HEADS: u32 = 2;
const HEAD_LENGTH: u32 = 256;
const EPSILON: f32 = 1e-6;

/// The standard deviation of the logits.
const SPREAD: f32 = 4.0;

/// The standard deviation of what attention weighs cells by, before softmax.
const SHARPNESS: f32 = 3.0;

/// What a layer adds to a row of length one.
const ATTENTION: f32 = 0.4;
const DENSE: f32 = 0.3;

/// The file, written the first time; `vocabulary_of` is another GGUF file.
pub fn model(vocabulary_of: &Path) -> PathBuf {
    static WRITTEN: OnceLock<PathBuf> = OnceLock::new();
    let fill = |file: &mut Gguf| fill(file, sys::GGML_TYPE_Q8_0);
    let write = || written("windows.gguf", vocabulary_of, fill);
    WRITTEN.get_or_init(write).clone()
}

/// The same with some weights that our kernels leave to llama.cpp.
pub fn mixed(vocabulary_of: &Path) -> PathBuf {
    static WRITTEN: OnceLock<PathBuf> = OnceLock::new();
    let fill = |file: &mut Gguf| fill(file, sys::GGML_TYPE_F32);
    let write = || written("mixed.gguf", vocabulary_of, fill);
    WRITTEN.get_or_init(write).clone()
}

/// `down`: the type of the last matrix of each layer.
fn fill(file: &mut Gguf, down: sys::ggml_type) {
    file.text(c"general.architecture", c"gemma3");
    file.text(c"general.name", c"random, with sliding windows");
    file.number(c"gemma3.block_count", LAYERS);
    file.number(c"gemma3.context_length", 8192);
    file.number(c"gemma3.embedding_length", WIDTH);
    file.number(c"gemma3.feed_forward_length", FEED_FORWARD);
    file.number(c"gemma3.attention.head_count", HEADS);
    file.number(c"gemma3.attention.head_count_kv", 1);
    file.number(c"gemma3.attention.key_length", HEAD_LENGTH);
    file.number(c"gemma3.attention.value_length", HEAD_LENGTH);
    file.number(c"gemma3.attention.sliding_window", WINDOW);
    file.number(c"gemma3.attention.sliding_window_pattern", 2);
    file.float(c"gemma3.attention.layer_norm_rms_epsilon", EPSILON);

    let (width, heads) = (WIDTH as usize, (HEADS * HEAD_LENGTH) as usize);
    let (head, dense) = (HEAD_LENGTH as usize, FEED_FORWARD as usize);
    // llama.cpp multiplies a token's row with the root of its length.
    file.vocabulary(width, SPREAD);
    file.norm("output_norm.weight", width, 1.0);
    for layer in 0..LAYERS {
        let name = |part| format!("blk.{layer}.{part}.weight");
        let mut matrix = |part, rows, len, kind| file.matrix(&name(part), kind, rows, len, |_| 1.0);
        matrix("attn_q", heads, width, sys::GGML_TYPE_Q8_0);
        matrix("attn_k", head, width, sys::GGML_TYPE_Q8_0);
        matrix("attn_v", head, width, sys::GGML_TYPE_Q8_0);
        matrix("attn_output", width, heads, sys::GGML_TYPE_Q8_0);
        matrix("ffn_gate", dense, width, sys::GGML_TYPE_Q8_0);
        matrix("ffn_up", dense, width, sys::GGML_TYPE_Q8_0);
        matrix("ffn_down", width, dense, down);
        file.norm(&name("attn_norm"), width, 1.0);
        file.norm(&name("attn_q_norm"), head, SHARPNESS);
        file.norm(&name("attn_k_norm"), head, 1.0);
        file.norm(&name("post_attention_norm"), width, ATTENTION);
        file.norm(&name("ffn_norm"), width, 1.0);
        file.norm(&name("post_ffw_norm"), width, DENSE);
    }
}
