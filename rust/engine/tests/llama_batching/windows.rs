//! A small model with sliding windows and random weights, the same each time.
//!
//! Of its layers every other one has a window; heads are as long as Gemma's. It
//! is made so that its text tells of mistakes. Attention looks at few cells and
//! has much to say, so one that is missing or wrong moves the logits; words are
//! few, so some go on as they did before, and drafts hold for a while. The
//! tokenizer is that of the demo model, and only words are said which come back
//! from their text as the same tokens.

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;
use std::sync::OnceLock;

use llama_cpp_sys_2 as sys;

/// Tokens that layers with a window look back on, the one that looks included.
pub const WINDOW: u32 = 64;

const LAYERS: u32 = 4;
const WIDTH: u32 = 64;
const FEED_FORWARD: u32 = 64;
const HEADS: u32 = 2;
const HEAD_LENGTH: u32 = 256;
const EPSILON: f32 = 1e-6;

/// Tokens that it may choose.
const WORDS: usize = 32;

/// The standard deviation of the logits of these.
const SPREAD: f32 = 4.0;

/// The standard deviation of what attention weighs cells by, before softmax.
const SHARPNESS: f32 = 3.0;

/// What a layer adds to a row of length one.
const ATTENTION: f32 = 0.4;
const DENSE: f32 = 0.3;

/// The file, written the first time; `vocabulary_of` is another GGUF file.
pub fn model(vocabulary_of: &Path) -> PathBuf {
    static WRITTEN: OnceLock<PathBuf> = OnceLock::new();
    let write = || written("windows.gguf", vocabulary_of, sys::GGML_TYPE_Q8_0);
    WRITTEN.get_or_init(write).clone()
}

/// The same with some weights that our kernels leave to llama.cpp.
pub fn mixed(vocabulary_of: &Path) -> PathBuf {
    static WRITTEN: OnceLock<PathBuf> = OnceLock::new();
    let write = || written("mixed.gguf", vocabulary_of, sys::GGML_TYPE_F32);
    WRITTEN.get_or_init(write).clone()
}

fn written(name: &str, vocabulary_of: &Path, down: sys::ggml_type) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // Others that run these tests see all of it or nothing.
    let part = path.with_extension(std::process::id().to_string());
    write(vocabulary_of, &part, down);
    std::fs::rename(part, &path).unwrap();
    path
}

/// `down`: the type of the last matrix of each layer.
fn write(vocabulary_of: &Path, path: &Path, down: sys::ggml_type) {
    let [from, to] =
        [vocabulary_of, path].map(|path| CString::new(path.to_str().unwrap()).unwrap());
    // SAFETY: all that is freed has been made here and is not used after; the
    // names and the path outlive the calls, which copy them.
    unsafe {
        let source = sys::gguf_init_from_file(
            from.as_ptr(),
            sys::gguf_init_params {
                no_alloc: true,
                ctx: null_mut(),
            },
        );
        assert!(!source.is_null(), "{from:?} is no GGUF file");
        let gguf = sys::gguf_init_empty();
        // The keys of its own architecture come along, and nobody reads them.
        sys::gguf_set_kv(gguf, source);
        let tokens = tokens(source);
        sys::gguf_free(source);
        describe(gguf);
        let context = sys::ggml_init(sys::ggml_init_params {
            mem_size: 64 << 20,
            mem_buffer: null_mut(),
            no_alloc: false,
        });
        let mut weights = Weights {
            gguf,
            context,
            random: fastrand::Rng::with_seed(1),
            down,
        };
        weights.add_all(&tokens);
        assert!(sys::gguf_write_to_file(gguf, to.as_ptr(), false));
        sys::gguf_free(gguf);
        sys::ggml_free(context);
    }
}

/// The texts of all tokens, as the file has them.
unsafe fn tokens(source: *const sys::gguf_context) -> Vec<String> {
    unsafe {
        let key = sys::gguf_find_key(source, c"tokenizer.ggml.tokens".as_ptr());
        assert!(key >= 0, "the test model has no vocabulary");
        let text = |token| CStr::from_ptr(sys::gguf_get_arr_str(source, key, token));
        (0..sys::gguf_get_arr_n(source, key))
            .map(|token| text(token).to_string_lossy().into_owned())
            .collect()
    }
}

unsafe fn describe(gguf: *mut sys::gguf_context) {
    let text = |key: &CStr, value: &CStr| unsafe {
        sys::gguf_set_val_str(gguf, key.as_ptr(), value.as_ptr());
    };
    let number = |key: &CStr, value: u32| unsafe {
        sys::gguf_set_val_u32(gguf, key.as_ptr(), value);
    };
    text(c"general.architecture", c"gemma3");
    text(c"general.name", c"random, with sliding windows");
    number(c"gemma3.block_count", LAYERS);
    number(c"gemma3.context_length", 8192);
    number(c"gemma3.embedding_length", WIDTH);
    number(c"gemma3.feed_forward_length", FEED_FORWARD);
    number(c"gemma3.attention.head_count", HEADS);
    number(c"gemma3.attention.head_count_kv", 1);
    number(c"gemma3.attention.key_length", HEAD_LENGTH);
    number(c"gemma3.attention.value_length", HEAD_LENGTH);
    number(c"gemma3.attention.sliding_window", WINDOW);
    number(c"gemma3.attention.sliding_window_pattern", 2);
    let key = c"gemma3.attention.layer_norm_rms_epsilon";
    unsafe { sys::gguf_set_val_f32(gguf, key.as_ptr(), EPSILON) };
}

struct Weights {
    gguf: *mut sys::gguf_context,
    context: *mut sys::ggml_context,
    random: fastrand::Rng,
    down: sys::ggml_type,
}

impl Weights {
    fn add_all(&mut self, tokens: &[String]) {
        let (width, heads) = (WIDTH as usize, (HEADS * HEAD_LENGTH) as usize);
        let (head, dense) = (HEAD_LENGTH as usize, FEED_FORWARD as usize);
        // llama.cpp multiplies a token's row with the root of its length.
        self.matrix("token_embd", tokens.len(), width, |_| 1.0);
        let mut words = 0;
        self.matrix("output", tokens.len(), width, |token| {
            let says = words < WORDS && is_word(&tokens[token]);
            words += usize::from(says);
            if says { SPREAD } else { 0.0 }
        });
        assert_eq!(words, WORDS);
        self.norm("output_norm", width, 1.0);
        for layer in 0..LAYERS {
            let name = |part| format!("blk.{layer}.{part}");
            self.norm(&name("attn_norm"), width, 1.0);
            self.matrix(&name("attn_q"), heads, width, |_| 1.0);
            self.matrix(&name("attn_k"), head, width, |_| 1.0);
            self.matrix(&name("attn_v"), head, width, |_| 1.0);
            self.matrix(&name("attn_output"), width, heads, |_| 1.0);
            self.norm(&name("attn_q_norm"), head, SHARPNESS);
            self.norm(&name("attn_k_norm"), head, 1.0);
            self.norm(&name("post_attention_norm"), width, ATTENTION);
            self.norm(&name("ffn_norm"), width, 1.0);
            self.matrix(&name("ffn_gate"), dense, width, |_| 1.0);
            self.matrix(&name("ffn_up"), dense, width, |_| 1.0);
            self.matrix(&name("ffn_down"), width, dense, |_| 1.0);
            self.norm(&name("post_ffw_norm"), width, DENSE);
        }
    }

    fn norm(&mut self, name: &str, len: usize, scale: f32) {
        self.add(name, sys::GGML_TYPE_F32, 1, &vec![scale; len]);
    }

    /// Random rows: their products with a row whose mean square is 1 have the
    /// standard deviation that `scale` gives for each.
    fn matrix(&mut self, name: &str, rows: usize, len: usize, mut scale: impl FnMut(usize) -> f32) {
        let mut values = Vec::with_capacity(rows * len);
        for row in 0..rows {
            // Even numbers from -x to x have a standard deviation of x / √3.
            let most = scale(row) * (3.0 / len as f32).sqrt();
            values.extend((0..len).map(|_| most * (2.0 * self.random.f32() - 1.0)));
        }
        let kind = if name.ends_with("ffn_down") {
            self.down
        } else {
            sys::GGML_TYPE_Q8_0
        };
        self.add(name, kind, rows, &values);
    }

    fn add(&mut self, name: &str, kind: sys::ggml_type, rows: usize, values: &[f32]) {
        let len = values.len() / rows;
        let name = CString::new(format!("{name}.weight")).unwrap();
        // SAFETY: the tensor has room for its rows, the values are as many, and
        // what the file is made of lives until it has been written.
        unsafe {
            let tensor = if rows == 1 {
                sys::ggml_new_tensor_1d(self.context, kind, len as i64)
            } else {
                sys::ggml_new_tensor_2d(self.context, kind, len as i64, rows as i64)
            };
            assert!(!tensor.is_null());
            sys::ggml_set_name(tensor, name.as_ptr());
            let (rows, len) = (rows as i64, len as i64);
            let data = (*tensor).data;
            sys::ggml_quantize_chunk(kind, values.as_ptr(), data, 0, rows, len, std::ptr::null());
            sys::gguf_add_tensor(self.gguf, tensor);
        }
    }
}

/// Whether it is a space and some small letters: texts of such tokens are cut
/// at the spaces.
fn is_word(token: &str) -> bool {
    let letters = token.strip_prefix('Ġ').unwrap_or_default();
    letters.len() > 1 && letters.bytes().all(|byte| byte.is_ascii_lowercase())
}
