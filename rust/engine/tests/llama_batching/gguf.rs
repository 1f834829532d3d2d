//! Small GGUF files with random weights, the same each time, and the tokenizer of
//! another file. Only words are said which come back from their text as the same
//! tokens.

use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};
use std::ptr::null_mut;

use llama_cpp_sys_2 as sys;

/// Tokens that such a model may choose.
const WORDS: usize = 32;

/// A file that is being made.
pub struct Gguf {
    gguf: *mut sys::gguf_context,
    context: *mut sys::ggml_context,
    random: fastrand::Rng,
    /// The texts of all tokens.
    tokens: Vec<String>,
}

/// Writes a file that `fill` describes and gives its weights; `vocabulary_of` is
/// another GGUF file.
pub fn written(name: &str, vocabulary_of: &Path, fill: impl FnOnce(&mut Gguf)) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // Others that run these tests see all of it or nothing.
    let part = path.with_extension(std::process::id().to_string());
    write(vocabulary_of, &part, fill);
    std::fs::rename(part, &path).unwrap();
    path
}

fn write(vocabulary_of: &Path, path: &Path, fill: impl FnOnce(&mut Gguf)) {
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
        let context = sys::ggml_init(sys::ggml_init_params {
            mem_size: 64 << 20,
            mem_buffer: null_mut(),
            no_alloc: false,
        });
        fill(&mut Gguf {
            gguf,
            context,
            random: fastrand::Rng::with_seed(1),
            tokens,
        });
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

impl Gguf {
    pub fn text(&mut self, key: &CStr, value: &CStr) {
        // SAFETY: both are copied.
        unsafe { sys::gguf_set_val_str(self.gguf, key.as_ptr(), value.as_ptr()) }
    }

    pub fn number(&mut self, key: &CStr, value: u32) {
        // SAFETY: the key is copied.
        unsafe { sys::gguf_set_val_u32(self.gguf, key.as_ptr(), value) }
    }

    pub fn float(&mut self, key: &CStr, value: f32) {
        // SAFETY: the key is copied.
        unsafe { sys::gguf_set_val_f32(self.gguf, key.as_ptr(), value) }
    }

    /// Rows for all tokens, and what makes logits of a row: of some words with
    /// the standard deviation `spread`, of other tokens 0.
    pub fn vocabulary(&mut self, width: usize, spread: f32) {
        let tokens = std::mem::take(&mut self.tokens);
        let kind = sys::GGML_TYPE_Q8_0;
        self.matrix("token_embd.weight", kind, tokens.len(), width, |_| 1.0);
        let mut words = 0;
        self.matrix("output.weight", kind, tokens.len(), width, |token| {
            let says = words < WORDS && is_word(&tokens[token]);
            words += usize::from(says);
            if says { spread } else { 0.0 }
        });
        assert_eq!(words, WORDS);
    }

    /// A row of the same number.
    pub fn norm(&mut self, name: &str, len: usize, scale: f32) {
        self.add(name, sys::GGML_TYPE_F32, 1, &vec![scale; len]);
    }

    /// Random rows: their products with a row whose mean square is 1 have the
    /// standard deviation that `scale` gives for each.
    pub fn matrix(
        &mut self,
        name: &str,
        kind: sys::ggml_type,
        rows: usize,
        len: usize,
        mut scale: impl FnMut(usize) -> f32,
    ) {
        let mut values = Vec::with_capacity(rows * len);
        for row in 0..rows {
            // Even numbers from -x to x have a standard deviation of x / √3.
            let most = scale(row) * (3.0 / len as f32).sqrt();
            values.extend((0..len).map(|_| most * (2.0 * self.random.f32() - 1.0)));
        }
        self.add(name, kind, rows, &values);
    }

    pub fn add(&mut self, name: &str, kind: sys::ggml_type, rows: usize, values: &[f32]) {
        let len = values.len() / rows;
        let name = CString::new(name).unwrap();
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
