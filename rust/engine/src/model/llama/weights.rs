//! A model file in memory.

use std::ffi::{CStr, CString, c_void};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::ptr::{NonNull, from_ref};

use llama_cpp_sys_2 as sys;

use super::backend::{clear_log, install_kernels, logged, path_to_c, text, weight_buffers};
use super::{CacheType, LlamaConfig, memory, pages};
use crate::Error;
use crate::model::Kernels;
use crate::model::loading::Loading;

/// A loaded model. The vocabulary and every context hold it by `Arc`; the
/// memory goes with the last of them.
#[derive(Debug)]
pub(super) struct Weights {
    model: NonNull<sys::llama_model>,
    kernels: Kernels,
    /// Whether products are computed with kernels of our own, some at least, and
    /// nothing by an accelerator.
    ours: bool,
    /// Whether all weights that llama.cpp multiplies with lie as in the file,
    /// before the CPU.
    plain: bool,
    /// Whoever moves the mapped file into huge pages; it ends before the model.
    copier: Option<pages::Copier>,
}

// SAFETY: after loading, llama.cpp only reads a model; contexts of different
// threads share one.
unsafe impl Send for Weights {}
// SAFETY: as above.
unsafe impl Sync for Weights {}

impl Drop for Weights {
    fn drop(&mut self) {
        self.copier = None;
        // SAFETY: nothing else owns it, and no context is left (each has an
        // `Arc` of this).
        unsafe { sys::llama_model_free(self.model.as_ptr()) }
    }
}

impl Weights {
    pub(super) fn load(config: &LlamaConfig, loading: &Loading) -> Result<Self, Error> {
        let path = &config.path;
        let refuse = |reason: &str| Error::ModelLoad(format!("{}: {reason}", path.display()));
        let size = check_file(path).map_err(|reason| refuse(&reason))?;
        if config.gpu_layers == 0
            && let Some(total) = memory::total()
            && size > total
        {
            return Err(refuse(&format!(
                "{} MiB of weights do not fit into {} MiB of memory: \
                 use a smaller model or quantization",
                size >> 20,
                total >> 20
            )));
        }
        let name = path_to_c(path).ok_or_else(|| refuse("not a path"))?;
        // SAFETY: plain data without invariants.
        let mut params = unsafe { sys::llama_model_default_params() };
        params.n_gpu_layers = config.gpu_layers;
        params.progress_callback = Some(report);
        params.progress_callback_user_data = from_ref(loading).cast_mut().cast();
        let installed = config.kernels.then(install_kernels);
        let offer = installed == Some(Ok(()));
        let mapped = pages::mappings(path);
        clear_log();
        let (model, report) = llm_kernels::ggml::observe(offer, || {
            // SAFETY: `name` and `loading` outlive the call.
            unsafe { sys::llama_model_load_from_file(name.as_ptr(), params) }
        });
        if loading.is_cancelled() {
            if !model.is_null() {
                // SAFETY: nobody else has it.
                unsafe { sys::llama_model_free(model) }
            }
            return Err(Error::Closed);
        }
        let ours = config.gpu_layers == 0 && !report.taken.is_empty();
        // llama.cpp names where weights lie in its log only.
        let buffers = weight_buffers();
        let plain = !buffers.is_empty()
            && buffers
                .iter()
                .all(|(name, _)| ["CPU", "CPU_Mapped", "CPU_PACKED"].contains(&name.as_str()));
        let (in_file, elsewhere): (Vec<_>, Vec<_>) = buffers
            .iter()
            .partition(|(name, _)| ["CPU", "CPU_Mapped"].contains(&name.as_str()));
        let mib =
            |buffers: Vec<&(String, f64)>| -> f64 { buffers.iter().map(|(_, mib)| mib).sum() };
        // Of what is rearranged, or packed for our kernels, the file is never
        // read again.
        let is_read = config.gpu_layers == 0 && !ours && mib(elsewhere) <= mib(in_file) / 8.0;
        let new = (is_read && !model.is_null())
            .then(|| pages::new_mapping(path, &mapped))
            .flatten();
        let kernels = match installed {
            None => Kernels::Off,
            Some(Ok(())) => Kernels::On(report.to_string()),
            Some(Err(reason)) => Kernels::Failed(reason),
        };
        let model = NonNull::new(model)
            .map(|model| Self {
                model,
                kernels,
                ours,
                plain,
                copier: new.and_then(pages::Copier::start),
            })
            .ok_or_else(|| refuse(&logged().unwrap_or_else(|| "llama.cpp refused it".into())))?;
        model
            .check_kind()
            .map_err(|reason| Error::Unsupported(format!("{}: {reason}", path.display())))?;
        Ok(model)
    }

    /// This engine continues text: one decoder, left to right.
    fn check_kind(&self) -> Result<(), &'static str> {
        let model = self.as_ptr();
        // SAFETY: `model` is valid, and these only read it.
        let (encoder, decoder, diffusion, vocab) = unsafe {
            (
                sys::llama_model_has_encoder(model),
                sys::llama_model_has_decoder(model),
                sys::llama_model_is_diffusion(model),
                sys::llama_vocab_type(sys::llama_model_get_vocab(model)),
            )
        };
        if encoder && decoder {
            return Err("an encoder-decoder model; only decoder models are supported");
        }
        if diffusion {
            return Err("a diffusion model; only left-to-right models are supported");
        }
        let embedding = !decoder
            || vocab == sys::LLAMA_VOCAB_TYPE_WPM
            || self
                .metadata("general.architecture")
                .and_then(|arch| self.metadata(&format!("{arch}.attention.causal")))
                .is_some_and(|causal| causal == "false");
        if embedding {
            return Err("an embedding model; it cannot generate text");
        }
        if vocab == sys::LLAMA_VOCAB_TYPE_NONE {
            return Err("the file has no vocabulary");
        }
        if vocab == sys::LLAMA_VOCAB_TYPE_SPM && !self.has_all_bytes() {
            return Err("its vocabulary has no tokens for some bytes");
        }
        Ok(())
    }

    /// Whether any text can be made tokens. Where a SentencePiece vocabulary
    /// has no token for a character it falls back to tokens for its bytes, and
    /// llama.cpp throws if one of these is not there either.
    fn has_all_bytes(&self) -> bool {
        // Bytes that are part of no UTF-8 text need no token.
        let mut missing = [true; 256];
        for byte in [0xC0, 0xC1].into_iter().chain(0xF5..=0xFF) {
            missing[byte] = false;
        }
        // SAFETY: `model` is valid, tokens are below the count, and the strings
        // live as long as the model.
        unsafe {
            let vocab = sys::llama_model_get_vocab(self.as_ptr());
            for token in 0..sys::llama_vocab_n_tokens(vocab) {
                let text = CStr::from_ptr(sys::llama_vocab_get_text(vocab, token)).to_bytes();
                if let Some(byte) = byte_of(text) {
                    missing[usize::from(byte)] = false;
                }
            }
        }
        !missing.contains(&true)
    }

    /// A value of the GGUF's metadata as text; none for arrays.
    fn metadata(&self, key: &str) -> Option<String> {
        let key = CString::new(key).ok()?;
        let mut buffer = [0_u8; 128];
        // SAFETY: `buffer` has the given size, and is ended by a zero.
        let length = unsafe {
            sys::llama_model_meta_val_str(
                self.as_ptr(),
                key.as_ptr(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
            )
        };
        // SAFETY: as above.
        (length >= 0).then(|| unsafe { text(buffer.as_ptr().cast()) })
    }

    /// Bytes of keys and values of one token, over all layers; an upper
    /// bound where layers have sliding windows, none for models without heads.
    pub(super) fn bytes_per_cell(&self, (keys, values): (CacheType, CacheType)) -> Option<u64> {
        let model = self.as_ptr();
        // SAFETY: `model` is valid, and these only read it.
        let (layers, heads, kv_heads, width) = unsafe {
            (
                sys::llama_model_n_layer(model),
                sys::llama_model_n_head(model),
                sys::llama_model_n_head_kv(model),
                sys::llama_model_n_embd(model),
            )
        };
        let [layers, heads, kv_heads, width] =
            [layers, heads, kv_heads, width].map(|count| u64::try_from(count).unwrap_or(0));
        let head = width.checked_div(heads)?;
        let width = kv_heads * head;
        Some(layers * (keys.bytes(width) + values.bytes(width)))
    }

    /// Heads of each layer's queries; none if layers differ in it.
    pub(super) fn heads(&self) -> Option<i32> {
        let architecture = self.metadata("general.architecture")?;
        let heads = self.metadata(&format!("{architecture}.attention.head_count"))?;
        heads.parse().ok()
    }

    /// Whether it has a state that grows with no token and has no parts.
    pub(super) fn is_stateful(&self) -> bool {
        let model = self.as_ptr();
        // SAFETY: `model` is valid, and these only read it.
        unsafe { sys::llama_model_is_recurrent(model) || sys::llama_model_is_hybrid(model) }
    }

    /// Tokens that layers with a sliding window look back on; 0: none has one.
    pub(super) fn window(&self) -> i32 {
        // SAFETY: `model` is valid, and this only reads it.
        unsafe { sys::llama_model_n_swa(self.as_ptr()) }.max(0)
    }

    /// A description such as "llama ?B Q4_1".
    pub(super) fn description(&self) -> String {
        let mut buffer = [0_u8; 128];
        // SAFETY: `buffer` has the given size, and is ended by a zero.
        unsafe {
            sys::llama_model_desc(self.as_ptr(), buffer.as_mut_ptr().cast(), buffer.len());
            text(buffer.as_ptr().cast())
        }
    }

    /// Tokens of context that the model was trained with; 0: not known.
    pub(super) fn trained_context(&self) -> usize {
        // SAFETY: the model is valid, and this only reads it.
        let tokens = unsafe { sys::llama_model_n_ctx_train(self.as_ptr()) };
        usize::try_from(tokens).unwrap_or(0)
    }

    /// Whether our own kernels compute with these.
    pub(super) fn kernels(&self) -> &Kernels {
        &self.kernels
    }

    /// Whether products are computed with kernels of our own, some at least, and
    /// nothing by an accelerator.
    pub(super) fn is_ours(&self) -> bool {
        self.ours
    }

    /// Whether all weights that are llama.cpp's lie before the CPU as they do in
    /// the file. It may rearrange them for its products.
    pub(super) fn are_plain(&self) -> bool {
        self.plain
    }

    /// Valid as long as `self`.
    pub(super) fn as_ptr(&self) -> *mut sys::llama_model {
        self.model.as_ptr()
    }
}

/// The byte that the token "<0x0A>", or a token of that single byte, is for.
fn byte_of(text: &[u8]) -> Option<u8> {
    match text {
        [byte] => Some(*byte),
        [b'<', b'0', b'x', high, low, b'>'] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

/// A hexadecimal digit, in upper case as llama.cpp looks for it.
fn digit(text: u8) -> Option<u8> {
    let digit = char::from(text).to_digit(16)? as u8;
    (!text.is_ascii_lowercase()).then_some(digit)
}

/// Called by llama.cpp after each piece of the weights; false makes it stop.
unsafe extern "C" fn report(progress: f32, loading: *mut c_void) -> bool {
    // SAFETY: what `Weights::load` passed, which outlives the load.
    unsafe { &*loading.cast::<Loading>() }.report(progress)
}

/// Looks at what can be said about a file better than llama.cpp says it;
/// returns its size in bytes.
fn check_file(path: &Path) -> Result<u64, String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let metadata = file.metadata().map_err(|error| error.to_string())?;
    if metadata.is_dir() {
        return Err("a folder, not a GGUF file".into());
    }
    let mut magic = [0_u8; 4];
    match file.read_exact(&mut magic) {
        Ok(()) if &magic == b"GGUF" => Ok(metadata.len()),
        _ => Err("not a GGUF file".into()),
    }
}
