//! A real model through llama.cpp. `LLM_API_TEST_MODEL` names a GGUF file.
#![cfg(feature = "llama")]

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use llm_engine::Error;
use llm_engine::lookup::Terms;
use llm_engine::model::llama::{CacheType, FlashAttention, LlamaConfig, LlamaLoader, backends};
use llm_engine::model::loading::Loading;
use llm_engine::model::{DecodeError, Kernels, Loader, Model, Reuse, Row, Span, Token, Vocab};

/// The loader for the test model; `None`, with the reason printed, if there is
/// no model to test with.
fn loader(cells: u32) -> Option<LlamaLoader> {
    watched(cells, Arc::default())
}

/// The same, with its load in view.
fn watched(cells: u32, loading: Arc<Loading>) -> Option<LlamaLoader> {
    Some(LlamaLoader::watched(config(cells)?, loading))
}

fn config(cells: u32) -> Option<LlamaConfig> {
    let Some(path) = std::env::var_os("LLM_API_TEST_MODEL") else {
        eprintln!("not run: LLM_API_TEST_MODEL does not name a GGUF file");
        return None;
    };
    Some(LlamaConfig {
        path: path.into(),
        backends: backends_folder(),
        cells,
        sequences: 4,
        threads: 1, // not slowed down by whatever else runs
        kernels: true,
        cache_types: (CacheType::F16, CacheType::F16),
        flash_attention: FlashAttention::Auto,
        gpu_layers: 0,
        rope_freq_base: 0.0,
        rope_freq_scale: 0.0,
    })
}

#[test]
fn drafts_are_for_what_one_row_and_several_may_compute_alike() {
    let drafts = |kernels, gpu_layers, threads| {
        let config = config(64)?;
        let mut loader = LlamaLoader::new(LlamaConfig {
            kernels,
            gpu_layers,
            threads,
            ..config
        });
        let (mut drafts, mut on) = (Terms::NONE, false);
        loader.load().unwrap();
        let mut look = |model: &mut dyn Model| {
            drafts = model.info().drafts;
            on = matches!(model.info().kernels, Kernels::On(_));
        };
        loader.with_model(&mut look).unwrap();
        Some((drafts, on))
    };
    let Some((ours, on)) = drafts(true, 0, 1) else {
        return;
    };
    // There are no kernels for some CPUs.
    assert_eq!(ours, if on { Terms::CHEAP } else { Terms::DEAR });
    assert_eq!(drafts(true, 1, 1), Some((Terms::NONE, on)));
    assert_eq!(drafts(false, 0, 1), Some((Terms::DEAR, false)));
    assert_eq!(drafts(false, 1, 1), Some((Terms::NONE, false)));
    // With more threads than heads, llama.cpp shares cells among them.
    assert_eq!(drafts(false, 0, 500), Some((Terms::NONE, false)));
}

/// Tokens before those that are compared: more cells than llama.cpp's attention
/// takes in one way for any number of rows, if it is left to itself.
const TEXT: usize = 600;

fn rows(tokens: &[Token], from: usize) -> Vec<Row> {
    let row = |(position, &token)| Row {
        token,
        position: position as i32,
        sequence: 0,
        logits: position >= TEXT,
    };
    (from..).zip(tokens).map(row).collect()
}

/// The logits of each of `tokens` after the text, computed in decodes of
/// `at_once` rows.
fn logits(model: &mut dyn Model, tokens: &[Token], at_once: usize) -> Vec<Vec<f32>> {
    model.remove(0, TEXT as i32, -1);
    let mut all = Vec::new();
    for piece in tokens.chunks(at_once) {
        model.decode(&rows(piece, TEXT + all.len())).unwrap();
        all.extend((0..piece.len()).map(|row| model.logits(row).to_vec()));
    }
    all
}

#[test]
fn where_there_are_drafts_rows_together_are_rows_alone_to_the_bit() {
    let cases = [
        ("f16", "f16", "auto", true),
        ("f16", "f16", "auto", false),
        ("q8_0", "q8_0", "on", true),
        ("f16", "q8_0", "auto", true),
        ("f16", "f16", "off", true),
        ("f32", "f32", "auto", true),
        ("bf16", "bf16", "auto", true),
        ("q5_1", "q4_0", "on", true),
        ("f32", "f16", "off", true),
    ];
    for case @ (keys, values, attention, kernels) in cases {
        let Some(config) = config(1024) else { return };
        let mut loader = LlamaLoader::new(LlamaConfig {
            kernels,
            // Some stay where cores are crowded: attention parts by threads.
            threads: 4,
            cache_types: (keys.parse().unwrap(), values.parse().unwrap()),
            flash_attention: attention.parse().unwrap(),
            ..config
        });
        loader.load().unwrap();
        let mut look = |model: &mut dyn Model| {
            let drafts = model.info().drafts;
            if drafts == Terms::NONE {
                return;
            }
            let text: Vec<Token> = (0..TEXT).map(|n| 300 + (n * n % 997) as Token).collect();
            for (number, piece) in text.chunks(200).enumerate() {
                model.decode(&rows(piece, 200 * number)).unwrap();
            }
            let tokens: Vec<Token> = (500..).take(1 + drafts.longest()).collect();
            let alone = logits(model, &tokens, 1);
            for &length in drafts.lengths {
                // The first time they may be computed alone as well.
                for turn in 0..2 {
                    if length <= model.drafts().longest() {
                        let together = logits(model, &tokens[..=length], 1 + length);
                        assert!(alone[..=length] == together, "{case:?} {length} {turn}");
                    }
                }
            }
            let most = model.drafts().longest();
            println!("{case:?}: {most} of {}", drafts.longest());
        };
        loader.with_model(&mut look).unwrap();
    }
}

#[test]
fn a_load_tells_how_far_it_is_and_can_be_stopped() {
    let loading = Arc::<Loading>::default();
    let Some(mut whole) = watched(64, Arc::clone(&loading)) else {
        return;
    };
    assert!(whole.load().is_ok());
    assert_eq!(loading.progress(), 1.0);
    let trained = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&trained);
    whole
        .with_model(&mut |model| *seen.lock().unwrap() = model.info().trained_context)
        .unwrap();
    assert!(*trained.lock().unwrap() > 512);

    let loading = Arc::<Loading>::default();
    let mut stopped = watched(64, Arc::clone(&loading)).unwrap();
    loading.cancel();
    assert_eq!(stopped.load().err(), Some(Error::Closed));
    assert!(loading.progress() < 1.0, "stopped at its first report");
}

/// `LLM_API_BACKENDS`, or where the build put them.
fn backends_folder() -> PathBuf {
    std::env::var_os("LLM_API_BACKENDS")
        .or(llama_cpp_sys_2::BACKENDS_DIR.map(Into::into))
        .expect("built with dynamic-backends")
        .into()
}

fn plain(text: &str) -> Vec<Span> {
    vec![Span {
        text: text.into(),
        is_data: false,
    }]
}

fn text(vocab: &dyn Vocab, tokens: &[Token]) -> String {
    let mut bytes = Vec::new();
    for &token in tokens {
        vocab.piece(token, &mut bytes);
    }
    String::from_utf8(bytes).unwrap()
}

fn argmax(logits: &[f32]) -> Token {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.unwrap().0 as Token
}

/// Continues `prompt` by `count` tokens, the likeliest each time.
fn greedy(model: &mut dyn Model, sequence: i32, prompt: &[Token], count: usize) -> Vec<Token> {
    let rows: Vec<Row> = (0..prompt.len())
        .map(|i| Row {
            token: prompt[i],
            position: i as i32,
            sequence,
            logits: i + 1 == prompt.len(),
        })
        .collect();
    model.decode(&rows).unwrap();
    let mut reply = vec![argmax(model.logits(prompt.len() - 1))];
    while reply.len() < count {
        let position = (prompt.len() + reply.len() - 1) as i32;
        let row = Row {
            token: *reply.last().unwrap(),
            position,
            sequence,
            logits: true,
        };
        model.decode(&[row]).unwrap();
        reply.push(argmax(model.logits(0)));
    }
    reply
}

/// Tests one after another: models computed at once slow each other down.
static ONE: Mutex<()> = Mutex::new(());

fn with_model(cells: u32, test: impl Fn(&Arc<dyn Vocab>, &mut dyn Model)) {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut loader) = loader(cells) else {
        return;
    };
    let vocab = loader.load().unwrap();
    let mut served = 0;
    loader
        .with_model(&mut |model| {
            served += 1;
            test(&vocab, model);
        })
        .unwrap();
    assert_eq!(served, 1);
}

#[test]
fn it_speaks() {
    with_model(512, |vocab, model| {
        let prompt = vocab.tokenize(&plain("The capital of France is")).unwrap();
        let reply = text(&**vocab, &greedy(model, 0, &prompt, 8));
        assert!(reply.contains("Paris"), "{reply:?}");
        let info = model.info();
        assert_eq!((info.cells, info.sequences), (512, 4));
        assert!(!info.description.is_empty());
        assert!(backends().unwrap().devices.iter().any(|name| name == "CPU"));
    });
}

#[test]
fn sequences_do_not_touch_each_other() {
    with_model(512, |vocab, model| {
        let one = vocab.tokenize(&plain("The capital of France is")).unwrap();
        let two = vocab
            .tokenize(&plain("Once upon a time, there was"))
            .unwrap();
        let alone = greedy(model, 0, &one, 8);
        greedy(model, 1, &two, 8);
        assert!(model.remove(0, 0, -1));
        assert_eq!(greedy(model, 0, &one, 8), alone);
        assert_eq!(greedy(model, 2, &one, 8), alone);
    });
}

#[test]
fn copied_and_truncated_cells_stand_for_computed_ones() {
    with_model(512, |vocab, model| {
        if model.info().reuse != Reuse::Any {
            return;
        }
        let prompt = vocab.tokenize(&plain("The capital of France is")).unwrap();
        let alone = greedy(model, 0, &prompt, 8);
        let cut = prompt.len() as i32 - 1;
        model.copy(0, 3, 0, cut);
        assert!(model.remove(0, 0, -1));
        let row = Row {
            token: prompt[cut as usize],
            position: cut,
            sequence: 3,
            logits: true,
        };
        model.decode(&[row]).unwrap();
        assert_eq!(argmax(model.logits(0)), alone[0]);
    });
}

#[test]
fn a_full_pool_is_no_failure() {
    with_model(256, |vocab, model| {
        let token = vocab.tokenize(&plain("a")).unwrap()[0];
        let rows = |sequence, count| -> Vec<Row> {
            (0..count)
                .map(|position| Row {
                    token,
                    position,
                    sequence,
                    logits: false,
                })
                .collect()
        };
        model.decode(&rows(0, 200)).unwrap();
        assert_eq!(model.decode(&rows(1, 100)), Err(DecodeError::NoRoom));
        model.decode(&rows(1, 56)).unwrap();
        assert!(model.remove(0, 0, -1));
        model.decode(&rows(2, 200)).unwrap();
    });
}

#[test]
fn a_context_can_be_made_again() {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(mut loader) = loader(256) else {
        return;
    };
    let vocab = loader.load().unwrap();
    let prompt = vocab.tokenize(&plain("The capital of France is")).unwrap();
    let mut replies = Vec::new();
    for _ in 0..2 {
        loader
            .with_model(&mut |model| replies.push(greedy(model, 0, &prompt, 4)))
            .unwrap();
    }
    assert_eq!(replies[0], replies[1]);
}

#[test]
fn a_chat_template_and_its_tokens() {
    with_model(256, |vocab, _| {
        assert!(vocab.chat_template().is_some());
        assert!(!vocab.eos_text().is_empty());
        let eos = vocab.tokenize(&plain(vocab.eos_text())).unwrap();
        assert!(vocab.is_end_of_generation(*eos.last().unwrap()));
        assert!(vocab.end_of_generation().contains(eos.last().unwrap()));
        assert_eq!(text(&**vocab, &eos), "", "control tokens have no text");
        let newline = vocab.newline().unwrap();
        assert_eq!(text(&**vocab, &[newline]), "\n");
    });
}
