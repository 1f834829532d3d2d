//! Just enough of llama.cpp to continue texts.
#![allow(dead_code, reason = "tests and examples use different parts")]

use std::ffi::{CString, c_void};
use std::marker::PhantomData;
use std::path::Path;
use std::sync::OnceLock;

use llama_cpp_sys_2 as sys;
use llm_kernels::ggml::{Report, install, observe};

/// Loads the CPU backend and puts our kernels behind it, once.
pub fn start() {
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        load_backends();
        install(None).unwrap();
    });
}

/// Loads llama.cpp's CPU backend as it is.
pub fn load_backends() {
    let folder = std::env::var("LLM_API_BACKENDS").ok();
    let folder = folder.or(sys::BACKENDS_DIR.map(Into::into));
    let folder = CString::new(folder.expect("built with dynamic-backends")).unwrap();
    unsafe {
        sys::llama_log_set(Some(silent), std::ptr::null_mut());
        sys::ggml_backend_load_all_from_path(folder.as_ptr());
    }
}

unsafe extern "C" fn silent(
    level: sys::ggml_log_level,
    text: *const std::ffi::c_char,
    _: *mut std::ffi::c_void,
) {
    if level == sys::GGML_LOG_LEVEL_ERROR {
        eprint!(
            "{}",
            unsafe { std::ffi::CStr::from_ptr(text) }.to_string_lossy()
        );
    }
}

/// The model to test with; `None`, with the reason printed, if there is none.
pub fn test_model() -> Option<String> {
    let path = std::env::var("LLM_API_TEST_MODEL").ok();
    if path.is_none() {
        eprintln!("not run: LLM_API_TEST_MODEL does not name a GGUF file");
    }
    path
}

pub struct Model(*mut sys::llama_model);

unsafe impl Send for Model {}
unsafe impl Sync for Model {}

impl Model {
    pub fn load(path: impl AsRef<Path>, kernels: bool, mmap: bool) -> (Model, Report) {
        let mode = match mmap {
            true => sys::LLAMA_LOAD_MODE_MMAP,
            false => sys::LLAMA_LOAD_MODE_NONE,
        };
        Self::load_by(path, kernels, |params| params.load_mode = mode)
    }

    /// Loads with parameters other than llama.cpp's own, which have no layers
    /// on accelerators here.
    pub fn load_by(
        path: impl AsRef<Path>,
        kernels: bool,
        change: impl FnOnce(&mut sys::llama_model_params),
    ) -> (Model, Report) {
        start();
        let path = CString::new(path.as_ref().to_str().unwrap()).unwrap();
        let (model, report) = observe(kernels, || unsafe {
            let mut params = sys::llama_model_default_params();
            params.n_gpu_layers = 0;
            change(&mut params);
            sys::llama_model_load_from_file(path.as_ptr(), params)
        });
        assert!(!model.is_null());
        (Model(model), report)
    }

    pub fn tokenize(&self, text: &str) -> Vec<i32> {
        let mut tokens = vec![0; text.len() + 8];
        let count = unsafe {
            sys::llama_tokenize(
                sys::llama_model_get_vocab(self.0),
                text.as_ptr().cast(),
                text.len() as i32,
                tokens.as_mut_ptr(),
                tokens.len() as i32,
                true,
                false,
            )
        };
        tokens.truncate(usize::try_from(count).unwrap());
        tokens
    }

    /// A value of the file, as text.
    pub fn value(&self, key: &std::ffi::CStr) -> String {
        let mut text = vec![0_u8; 256];
        let length = unsafe {
            let target = text.as_mut_ptr().cast();
            sys::llama_model_meta_val_str(self.0, key.as_ptr(), target, text.len())
        };
        text.truncate(usize::try_from(length).unwrap());
        String::from_utf8(text).unwrap()
    }

    pub fn n_vocab(&self) -> usize {
        unsafe { sys::llama_vocab_n_tokens(sys::llama_model_get_vocab(self.0)) as usize }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        unsafe { sys::llama_model_free(self.0) }
    }
}

/// A LoRA adapter.
pub struct Adapter<'a>(*mut sys::llama_adapter_lora, PhantomData<&'a Model>);

impl<'a> Adapter<'a> {
    pub fn load(model: &'a Model, path: &Path) -> Adapter<'a> {
        let path = CString::new(path.to_str().unwrap()).unwrap();
        let adapter = unsafe { sys::llama_adapter_lora_init(model.0, path.as_ptr()) };
        assert!(!adapter.is_null());
        Adapter(adapter, PhantomData)
    }
}

pub struct Context<'a> {
    context: *mut sys::llama_context,
    threads: ThreadPool,
    n_vocab: usize,
    model: PhantomData<&'a Model>,
}

/// A token to decode.
#[derive(Clone, Copy)]
pub struct Row {
    pub token: i32,
    pub position: usize,
    pub sequence: usize,
    /// Whether the logits after it are wanted.
    pub logits: bool,
}

impl<'a> Context<'a> {
    /// A context for up to 32 sequences that share 4096 cells.
    pub fn new(model: &'a Model, threads: i32) -> Context<'a> {
        Self::new_by(model, threads, |_| ())
    }

    /// A context with other parameters.
    pub fn new_by(
        model: &'a Model,
        threads: i32,
        change: impl FnOnce(&mut sys::llama_context_params),
    ) -> Context<'a> {
        let context = unsafe {
            let mut params = sys::llama_context_default_params();
            params.n_ctx = 4096;
            params.n_batch = 512;
            params.n_ubatch = 512;
            params.n_seq_max = 32;
            params.kv_unified = true;
            params.n_threads = threads;
            params.n_threads_batch = threads;
            change(&mut params);
            sys::llama_init_from_model(model.0, params)
        };
        assert!(!context.is_null());
        let threads = ThreadPool::new(threads);
        unsafe { sys::llama_attach_threadpool(context, threads.0, std::ptr::null_mut()) };
        Context {
            context,
            threads,
            n_vocab: model.n_vocab(),
            model: PhantomData,
        }
    }

    /// Computes with an adapter from now on, or with none.
    pub fn set_adapter(&mut self, adapter: Option<&Adapter<'a>>) {
        let mut adapters: Vec<_> = adapter.iter().map(|adapter| adapter.0).collect();
        let status = unsafe {
            let list = adapters.as_mut_ptr();
            sys::llama_set_adapters_lora(self.context, list, adapters.len(), &mut 1.0)
        };
        assert_eq!(status, 0);
    }

    /// Decodes one batch; the logits that are wanted.
    pub fn decode_rows(&mut self, rows: &[Row]) -> Vec<&[f32]> {
        unsafe {
            let mut batch = sys::llama_batch_init(rows.len() as i32, 0, 1);
            batch.n_tokens = rows.len() as i32;
            for (i, row) in rows.iter().enumerate() {
                *batch.token.add(i) = row.token;
                *batch.pos.add(i) = row.position as i32;
                *batch.n_seq_id.add(i) = 1;
                **batch.seq_id.add(i) = row.sequence as i32;
                *batch.logits.add(i) = row.logits.into();
            }
            let status = sys::llama_decode(self.context, batch);
            sys::llama_batch_free(batch);
            assert_eq!(status, 0);
            sys::llama_synchronize(self.context);
            let wanted = (0..rows.len()).filter(|&i| rows[i].logits);
            wanted
                .map(|i| {
                    let row = sys::llama_get_logits_ith(self.context, i as i32);
                    std::slice::from_raw_parts(row, self.n_vocab)
                })
                .collect()
        }
    }

    /// Decodes tokens of sequence 0 that begin at `position`; the logits after each.
    pub fn decode(&mut self, tokens: &[i32], position: usize) -> Vec<Vec<f32>> {
        let row = |(i, &token)| Row {
            token,
            position: position + i,
            sequence: 0,
            logits: true,
        };
        let rows: Vec<Row> = tokens.iter().enumerate().map(row).collect();
        self.decode_rows(&rows)
            .into_iter()
            .map(<[f32]>::to_vec)
            .collect()
    }

    /// Forgets all tokens.
    pub fn clear(&mut self) {
        unsafe { sys::llama_memory_clear(sys::llama_get_memory(self.context), false) }
    }

    /// The likeliest continuation.
    pub fn greedy(&mut self, prompt: &[i32], count: usize) -> Vec<i32> {
        let mut reply = vec![argmax(self.decode(prompt, 0).last().unwrap())];
        while reply.len() < count {
            let position = prompt.len() + reply.len() - 1;
            let logits = self.decode(&reply[reply.len() - 1..], position);
            reply.push(argmax(&logits[0]));
        }
        reply
    }
}

impl Drop for Context<'_> {
    fn drop(&mut self) {
        unsafe { sys::llama_free(self.context) }
        self.threads.free();
    }
}

/// Threads that sleep between graphs, as the engine's do.
struct ThreadPool(sys::ggml_threadpool_t);

impl ThreadPool {
    fn new(threads: i32) -> ThreadPool {
        type New = unsafe extern "C" fn(*mut sys::ggml_threadpool_params) -> sys::ggml_threadpool_t;
        unsafe {
            let new = cpu_function(c"ggml_threadpool_new");
            let mut params = sys::ggml_threadpool_params_default(threads);
            params.poll = 0;
            ThreadPool(std::mem::transmute::<*mut c_void, New>(new)(&mut params))
        }
    }

    fn free(&self) {
        type Free = unsafe extern "C" fn(sys::ggml_threadpool_t);
        unsafe {
            let free = cpu_function(c"ggml_threadpool_free");
            std::mem::transmute::<*mut c_void, Free>(free)(self.0);
        }
    }
}

fn cpu_function(name: &std::ffi::CStr) -> *mut c_void {
    unsafe {
        let device = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
        let registry = sys::ggml_backend_dev_backend_reg(device);
        sys::ggml_backend_reg_get_proc_address(registry, name.as_ptr())
    }
}

/// Mean Kullback-Leibler divergence of distributions from others, in nats.
pub fn divergence(from: &[Vec<f32>], to: &[Vec<f32>]) -> f64 {
    let total: f64 = from
        .iter()
        .zip(to)
        .map(|(p, q)| {
            let (p, q) = (log_softmax(p), log_softmax(q));
            p.iter()
                .zip(&q)
                .map(|(p, q)| p.exp() * (p - q))
                .sum::<f64>()
        })
        .sum();
    total / from.len() as f64
}

pub fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from(x - max).exp()).sum();
    logits
        .iter()
        .map(|x| f64::from(x - max) - sum.ln())
        .collect()
}

pub fn argmax(logits: &[f32]) -> i32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.unwrap().0 as i32
}
