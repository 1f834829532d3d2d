//! The tokenizer and the loader on small models made up here, with the quirks
//! of real ones: SentencePiece's leading space, tokens that strip white space,
//! control tokens that the file does not mark as such.
#![cfg(feature = "llama")]

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use llama_cpp_sys_2 as sys;
use llm_engine::Error;
use llm_engine::model::llama::{CacheType, FlashAttention, LlamaConfig, LlamaLoader};
use llm_engine::model::{Loader, Span, Token, Vocab};

const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

/// A one-layer model with a SentencePiece vocabulary, as the bytes of a GGUF.
struct Tiny {
    architecture: &'static str,
    /// llama.cpp gives the special tokens of "phi-3" the attribute RSTRIP.
    name: &'static str,
    specials: &'static [(&'static str, i32)],
    /// A byte-pair vocabulary with this pre-tokenizer instead.
    pre_tokenizer: Option<&'static str>,
}

impl Default for Tiny {
    fn default() -> Self {
        Self {
            architecture: "llama",
            name: "tiny",
            specials: &[
                ("<|user|>", CONTROL),
                ("<|user|>!", CONTROL),
                ("<|im_start|>", USER_DEFINED),
                ("<table>", USER_DEFINED),
                ("|>x", CONTROL),
                ("<|endoftext|>", CONTROL),
            ],
            pre_tokenizer: None,
        }
    }
}

const WIDTH: u64 = 32;

impl Tiny {
    fn tokens(&self) -> Vec<(String, i32)> {
        let mut tokens = vec![
            ("<unk>".to_owned(), UNKNOWN),
            ("<s>".to_owned(), CONTROL),
            ("</s>".to_owned(), CONTROL),
        ];
        tokens.extend((0..256).map(|byte| (format!("<0x{byte:02X}>"), BYTE)));
        let words = [
            "▁", "a", "b", "▁a", "ab", "▁ab", "<", ">", "|", "x", "us", "er", "user",
        ];
        tokens.extend(words.map(|word| (word.to_owned(), NORMAL)));
        tokens.extend(
            self.specials
                .iter()
                .map(|(text, kind)| ((*text).to_owned(), *kind)),
        );
        tokens
    }

    fn bytes(&self) -> Vec<u8> {
        let tokens = self.tokens();
        let count = tokens.len() as u64;
        let arch = self.architecture;
        let mut meta = Meta::default();
        meta.string("general.architecture", arch);
        meta.string("general.name", self.name);
        for (key, value) in [
            ("context_length", 64),
            ("embedding_length", WIDTH as u32),
            ("block_count", 1),
            ("feed_forward_length", WIDTH as u32),
            ("attention.head_count", 1),
        ] {
            meta.u32(&format!("{arch}.{key}"), value);
        }
        meta.f32(&format!("{arch}.attention.layer_norm_rms_epsilon"), 1e-5);
        match self.pre_tokenizer {
            None => meta.string("tokenizer.ggml.model", "llama"),
            Some(name) => {
                meta.string("tokenizer.ggml.model", "gpt2");
                meta.string("tokenizer.ggml.pre", name);
                meta.array("tokenizer.ggml.merges", 8, 1, sized("a b"));
            }
        }
        let texts = tokens.iter().flat_map(|(text, _)| sized(text)).collect();
        meta.array("tokenizer.ggml.tokens", 8, count, texts);
        let scores = (0..count).flat_map(|i| (i as f32).to_le_bytes()).collect();
        meta.array("tokenizer.ggml.scores", 6, count, scores);
        let types = tokens
            .iter()
            .flat_map(|(_, kind)| kind.to_le_bytes())
            .collect();
        meta.array("tokenizer.ggml.token_type", 5, count, types);
        meta.u32("tokenizer.ggml.bos_token_id", 1);
        meta.u32("tokenizer.ggml.eos_token_id", 2);

        let square: &[u64] = &[WIDTH, WIDTH];
        let tensors: [(&str, &[u64]); 11] = [
            ("token_embd.weight", &[WIDTH, count]),
            ("output_norm.weight", &[WIDTH]),
            ("blk.0.attn_norm.weight", &[WIDTH]),
            ("blk.0.attn_q.weight", square),
            ("blk.0.attn_k.weight", square),
            ("blk.0.attn_v.weight", square),
            ("blk.0.attn_output.weight", square),
            ("blk.0.ffn_norm.weight", &[WIDTH]),
            ("blk.0.ffn_gate.weight", square),
            ("blk.0.ffn_up.weight", square),
            ("blk.0.ffn_down.weight", square),
        ];
        let mut file = b"GGUF".to_vec();
        file.extend(3_u32.to_le_bytes());
        file.extend((tensors.len() as u64).to_le_bytes());
        file.extend(meta.count.to_le_bytes());
        file.extend(meta.bytes);
        let mut data = 0;
        for (name, shape) in tensors {
            file.extend(sized(name));
            file.extend((shape.len() as u32).to_le_bytes());
            file.extend(shape.iter().flat_map(|n| n.to_le_bytes()));
            file.extend(0_u32.to_le_bytes()); // F32
            file.extend((data as u64).to_le_bytes());
            data += shape.iter().product::<u64>() as usize * 4;
        }
        file.resize(file.len().next_multiple_of(32) + data, 0);
        file
    }
}

fn sized(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

/// Key-value pairs of a GGUF.
#[derive(Default)]
struct Meta {
    count: u64,
    bytes: Vec<u8>,
}

impl Meta {
    fn pair(&mut self, key: &str, kind: u32, value: &[u8]) {
        self.count += 1;
        self.bytes.extend(sized(key));
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend(value);
    }

    fn u32(&mut self, key: &str, value: u32) {
        self.pair(key, 4, &value.to_le_bytes());
    }

    fn f32(&mut self, key: &str, value: f32) {
        self.pair(key, 6, &value.to_le_bytes());
    }

    fn string(&mut self, key: &str, value: &str) {
        self.pair(key, 8, &sized(value));
    }

    fn array(&mut self, key: &str, kind: u32, count: u64, items: Vec<u8>) {
        let value = [&kind.to_le_bytes()[..], &count.to_le_bytes(), &items].concat();
        self.pair(key, 9, &value);
    }
}

/// A file that is gone at the end of the test.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("llm-api-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        Self(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// `LLM_API_BACKENDS`, or where the build put them.
fn backends_folder() -> PathBuf {
    std::env::var_os("LLM_API_BACKENDS")
        .or(llama_cpp_sys_2::BACKENDS_DIR.map(Into::into))
        .expect("built with dynamic-backends")
        .into()
}

fn load(path: &Path) -> Result<Arc<dyn Vocab>, Error> {
    LlamaLoader::new(LlamaConfig {
        path: path.into(),
        backends: backends_folder(),
        cells: 64,
        sequences: 1,
        threads: 1,
        kernels: true,
        cache_types: (CacheType::F16, CacheType::F16),
        flash_attention: FlashAttention::Auto,
        gpu_layers: 0,
        rope_freq_base: 0.0,
        rope_freq_scale: 0.0,
    })
    .load()
}

/// llama.cpp's own tokens for a text, control tokens parsed.
struct Reference(*mut sys::llama_model);

impl Reference {
    fn new(path: &Path) -> Self {
        let path = CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the path outlives the call; parameters hold no pointers.
        unsafe {
            let mut params = sys::llama_model_default_params();
            params.vocab_only = true;
            Self(sys::llama_model_load_from_file(path.as_ptr(), params))
        }
    }

    fn tokenize(&self, text: &str) -> Vec<Token> {
        let mut tokens = vec![0; text.len() * 3 + 8];
        // SAFETY: text and buffer have the given sizes.
        let count = unsafe {
            sys::llama_tokenize(
                sys::llama_model_get_vocab(self.0),
                text.as_ptr().cast(),
                text.len() as i32,
                tokens.as_mut_ptr(),
                tokens.len() as i32,
                true,
                true,
            )
        };
        tokens.truncate(usize::try_from(count).unwrap());
        tokens
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // SAFETY: owned by this alone.
        unsafe { sys::llama_model_free(self.0) }
    }
}

/// xorshift64*: the same texts on every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }
}

fn span(text: &str, is_data: bool) -> Span {
    Span {
        text: text.into(),
        is_data,
    }
}

const PIECES: &[&str] = &[
    "<|user|>",
    "<|user|>!",
    "<|im_start|>",
    "<table>",
    "|>x",
    "<s>",
    "</s>",
    "<unk>",
    "a",
    "b",
    " ",
    "\n",
    "  ",
    "<",
    "|>",
    "user",
    "é",
    "🦙",
    "<|us",
    "er|>",
];

fn random_text(random: &mut Random) -> String {
    (0..random.below(12))
        .map(|_| PIECES[random.below(PIECES.len())])
        .collect()
}

#[test]
fn trusted_text_has_llama_cpps_own_tokens() {
    for name in ["tiny", "tiny phi-3"] {
        let tiny = Tiny {
            name,
            ..Tiny::default()
        };
        let file = Temporary::new(&format!("{name}.gguf"), &tiny.bytes());
        let vocab = load(&file.0).unwrap();
        let reference = Reference::new(&file.0);
        let mut random = Random(7);
        for _ in 0..3000 {
            // Cut into spans at random: neighbours are one stretch.
            let parts: Vec<String> = (0..3).map(|_| random_text(&mut random)).collect();
            let text = parts.concat();
            let spans: Vec<Span> = parts.iter().map(|part| span(part, false)).collect();
            let mut expected = reference.tokenize(&text);
            if text.starts_with("<s>") {
                expected.remove(0); // llama.cpp doubles the BOS
            }
            assert_eq!(vocab.tokenize(&spans).unwrap(), expected, "{text:?}");
        }
    }
}

#[test]
fn data_without_control_text_has_the_same_tokens() {
    let file = Temporary::new("same.gguf", &Tiny::default().bytes());
    let vocab = load(&file.0).unwrap();
    let reference = Reference::new(&file.0);
    let spans = [
        span("<|user|>\na", false),
        span("b <table> ab\n", true),
        span("b</s>", false),
    ];
    let text: String = spans.iter().map(|span| &*span.text).collect();
    assert_eq!(vocab.tokenize(&spans).unwrap(), reference.tokenize(&text));
}

#[test]
fn data_never_becomes_a_control_token() {
    let tiny = Tiny::default();
    let file = Temporary::new("data.gguf", &tiny.bytes());
    let vocab = load(&file.0).unwrap();
    let tokens = tiny.tokens();
    let is_control = |token: &&Token| {
        let (text, kind) = &tokens[**token as usize];
        matches!(*kind, CONTROL | UNKNOWN) || text == "<|im_start|>"
    };
    let mut random = Random(11);
    for _ in 0..3000 {
        let data = random_text(&mut random);
        let plain = vocab.tokenize(&[span(&data, true)]).unwrap();
        assert_eq!(
            plain.iter().filter(is_control).count(),
            1,
            "the BOS and {data:?}"
        );
        // Nor with the help of the template's text beside it.
        if data.is_empty() {
            continue;
        }
        let spans = [
            span("a<|us", false),
            span(&data, true),
            span("er|>b", false),
        ];
        let mixed = vocab.tokenize(&spans).unwrap();
        assert_eq!(
            mixed.iter().filter(is_control).count(),
            1,
            "the BOS and {data:?}"
        );
        // And every character of it is still there.
        let mut bytes = Vec::new();
        plain
            .iter()
            .for_each(|&token| vocab.piece(token, &mut bytes));
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.replace(' ', ""), data.replace(' ', ""));
    }
}

#[test]
fn a_bos_comes_first_and_once() {
    let file = Temporary::new("bos.gguf", &Tiny::default().bytes());
    let vocab = load(&file.0).unwrap();
    let bos = |spans: &[Span]| {
        let tokens = vocab.tokenize(spans).unwrap();
        assert_eq!(tokens[0], 1);
        tokens.iter().filter(|&&token| token == 1).count()
    };
    assert_eq!(bos(&[]), 1);
    assert_eq!(bos(&[span("a", false)]), 1);
    assert_eq!(bos(&[span("<s>a", false)]), 1);
    assert_eq!(bos(&[span("<s>a", true)]), 1);
    assert_eq!(bos(&[span("<s>", false), span("<s>a", true)]), 1);
    assert_eq!((vocab.bos_text(), vocab.eos_text()), ("<s>", "</s>"));
    assert!(vocab.end_of_generation().contains(&2));
    assert_eq!(vocab.newline(), Some(3 + 10));
    assert_eq!(vocab.chat_template(), None);
}

/// Pre-tokenizers that are a `std::regex` call themselves once a character.
#[test]
fn a_long_word_does_not_overflow_the_stack() {
    for name in ["gpt-4o", "tekken", "deepseek-llm"] {
        let tiny = Tiny {
            pre_tokenizer: Some(name),
            ..Tiny::default()
        };
        let file = Temporary::new(&format!("{name}.gguf"), &tiny.bytes());
        let vocab = load(&file.0).unwrap();
        for word in ["a", " ", "<"] {
            let text = word.repeat(200_000);
            vocab.tokenize(&[span(&text, true)]).unwrap();
        }
    }
}

fn refusal(name: &str, bytes: &[u8]) -> String {
    let file = Temporary::new(name, bytes);
    match load(&file.0) {
        Err(Error::ModelLoad(reason)) => reason,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("{name} was loaded"),
    }
}

#[test]
fn a_truncated_file_is_refused_wherever_it_ends() {
    let bytes = Tiny::default().bytes();
    let mut random = Random(3);
    let mut ends: Vec<usize> = (0..300).map(|_| random.below(bytes.len())).collect();
    ends.extend([0, 3, 4, 8, 16, 24, bytes.len() - 1]);
    for end in ends {
        let reason = refusal("cut.gguf", &bytes[..end]);
        assert!(!reason.ends_with("refused it"), "{end}: {reason}");
    }
}

#[test]
fn refusals_say_why() {
    let unknown = Tiny {
        architecture: "hal9000",
        ..Tiny::default()
    };
    let reason = refusal("unknown.gguf", &unknown.bytes());
    assert!(
        reason.contains("unknown model architecture: 'hal9000'"),
        "{reason}"
    );
    assert!(refusal("text.gguf", b"hello, world").ends_with("not a GGUF file"));
    let folder = load(&std::env::temp_dir());
    assert!(matches!(folder, Err(Error::ModelLoad(reason)) if reason.contains("a folder")));
    let missing = load(Path::new("/does/not/exist.gguf"));
    assert!(matches!(missing, Err(Error::ModelLoad(reason)) if reason.contains("No such file")));
}
