//! A small model with recurrent state (Mamba) and random weights.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use llama_cpp_sys_2 as sys;

use crate::gguf::{Gguf, written};

const LAYERS: usize = 2;
const WIDTH: usize = 64;
/// As the architecture has it.
const INNER: usize = 2 * WIDTH;
const STATE: usize = 16;
const STEP_RANK: usize = 4;
const KERNEL: usize = 4;

/// The file, written the first time; `vocabulary_of` is another GGUF file.
pub fn model(vocabulary_of: &Path) -> PathBuf {
    static WRITTEN: OnceLock<PathBuf> = OnceLock::new();
    let write = || written("recurrent.gguf", vocabulary_of, fill);
    WRITTEN.get_or_init(write).clone()
}

fn fill(file: &mut Gguf) {
    file.text(c"general.architecture", c"mamba");
    file.text(c"general.name", c"random, with recurrent state");
    file.number(c"mamba.block_count", LAYERS as u32);
    file.number(c"mamba.context_length", 8192);
    file.number(c"mamba.embedding_length", WIDTH as u32);
    file.number(c"mamba.feed_forward_length", 0);
    file.number(c"mamba.attention.head_count", 0);
    file.number(c"mamba.ssm.conv_kernel", KERNEL as u32);
    file.number(c"mamba.ssm.inner_size", INNER as u32);
    file.number(c"mamba.ssm.state_size", STATE as u32);
    file.number(c"mamba.ssm.time_step_rank", STEP_RANK as u32);
    file.float(c"mamba.attention.layer_norm_rms_epsilon", 1e-5);

    file.vocabulary(WIDTH, 4.0);
    file.norm("output_norm.weight", WIDTH, 1.0);
    for layer in 0..LAYERS {
        let name = |part| format!("blk.{layer}.{part}");
        let (q8, f32) = (sys::GGML_TYPE_Q8_0, sys::GGML_TYPE_F32);
        let mut matrix = |part, kind, rows, len| file.matrix(&name(part), kind, rows, len, |_| 1.0);
        matrix("ssm_in.weight", q8, 2 * INNER, WIDTH);
        matrix("ssm_conv1d.weight", f32, INNER, KERNEL);
        matrix("ssm_x.weight", f32, STEP_RANK + 2 * STATE, INNER);
        matrix("ssm_dt.weight", f32, INNER, STEP_RANK);
        matrix("ssm_out.weight", q8, WIDTH, INNER);
        file.norm(&name("attn_norm.weight"), WIDTH, 1.0);
        file.norm(&name("ssm_conv1d.bias"), INNER, 0.0);
        file.norm(&name("ssm_dt.bias"), INNER, -1.0);
        file.norm(&name("ssm_d"), INNER, 1.0);
        // States that fade soon, and some that last.
        let decay = (0..STATE * INNER).map(|at| -((at % STATE + 1) as f32) / 8.0);
        file.add(&name("ssm_a"), f32, INNER, &decay.collect::<Vec<_>>());
    }
}
