//! A real model with our kernels and without. `LLM_API_TEST_MODEL` names a
//! GGUF file.

use llama_cpp_sys_2 as sys;

use crate::adapter;
use crate::llama::{Adapter, Context, Model, Row, divergence, test_model};

const PROMPT: &str = "The history of bread is long. The first bakers";

#[test]
fn text_is_as_without_our_kernels() {
    let Some(path) = test_model() else { return };
    let (stock, stock_report) = Model::load(&path, false, true);
    assert!(stock_report.taken.is_empty());
    let (ours, report) = Model::load(&path, true, true);
    assert!(!report.taken.is_empty());

    let tokens = ours.tokenize(PROMPT);
    let expected = Context::new(&stock, 2).decode(&tokens, 0);
    let mut first = None;
    for threads in [1, 2, 3, 8] {
        let found = Context::new(&ours, threads).decode(&tokens, 0);
        let kl = divergence(&expected, &found);
        assert!(kl < 0.02, "{threads} threads: {kl}");
        assert!(
            *first.get_or_insert(found.clone()) == found,
            "{threads} threads differ"
        );
    }
    let expected = Context::new(&stock, 2).greedy(&tokens, 8);
    let found = Context::new(&ours, 2).greedy(&tokens, 8);
    assert_eq!(expected, found);
}

#[test]
fn all_ways_to_read_the_file_are_the_same() {
    let Some(path) = test_model() else { return };
    let modes = [
        sys::LLAMA_LOAD_MODE_MMAP,
        sys::LLAMA_LOAD_MODE_NONE,
        sys::LLAMA_LOAD_MODE_DIRECT_IO,
    ];
    let mut first = None;
    for mode in modes {
        let (model, report) = Model::load_by(&path, true, |params| params.load_mode = mode);
        assert!(!report.taken.is_empty());
        let tokens = model.tokenize(PROMPT);
        let found = (report, Context::new(&model, 1).decode(&tokens, 0));
        assert!(*first.get_or_insert(found.clone()) == found, "mode {mode}");
    }
}

#[test]
fn adapters_are_added_as_without_our_kernels() {
    let Some(path) = test_model() else { return };
    let (stock, _) = Model::load(&path, false, true);
    let (ours, _) = Model::load(&path, true, true);
    if ours.value(c"general.architecture") != "llama" {
        return eprintln!("not run: the adapter is one for SmolLM2");
    }
    let file = std::env::temp_dir().join(format!("llm-kernels-{}.gguf", std::process::id()));
    adapter::write(&file, &ours);
    let tokens = ours.tokenize(PROMPT);
    let [(stock_before, stock_with), (before, with)] = [&stock, &ours].map(|model| {
        let adapter = Adapter::load(model, &file);
        let mut context = Context::new(model, 2);
        let before = context.decode(&tokens, 0);
        context.clear();
        context.set_adapter(Some(&adapter));
        let with = context.decode(&tokens, 0);
        context.clear();
        context.set_adapter(None);
        assert!(context.decode(&tokens, 0) == before);
        (before, with)
    });
    std::fs::remove_file(&file).unwrap();
    adapter::assert_applied(&stock_before, &stock_with, &with);
    assert!(divergence(&stock_before, &before) < 0.02);
}

#[test]
fn a_stream_is_the_same_beside_others() {
    let Some(path) = test_model() else { return };
    let (model, _) = Model::load(&path, true, true);
    let tokens = model.tokenize(PROMPT);
    let (streams, steps) = (6, 3);
    let prompt = tokens.len() - steps;
    // Each stream has some tokens less of the text.
    let decode = |streams: std::ops::Range<usize>| {
        let mut context = Context::new(&model, 2);
        let row = |sequence, position| Row {
            token: tokens[sequence % 3 + position],
            position,
            sequence,
            logits: true,
        };
        for sequence in streams.clone() {
            let rows = (0..prompt - 3).map(|position| row(sequence, position));
            context.decode_rows(&rows.collect::<Vec<_>>());
        }
        let step = |position| {
            let rows: Vec<Row> = streams.clone().map(|s| row(s, position)).collect();
            let logits = context.decode_rows(&rows);
            logits.into_iter().map(<[f32]>::to_vec).collect::<Vec<_>>()
        };
        (prompt - 3..prompt - 3 + steps)
            .map(step)
            .collect::<Vec<_>>()
    };
    let together = decode(0..streams);
    for stream in 0..streams {
        for (alone, together) in decode(stream..stream + 1).iter().zip(&together) {
            assert!(alone[0] == together[stream], "stream {stream}");
        }
    }
}

#[test]
fn models_with_our_kernels_and_without_run_at_once() {
    let Some(path) = test_model() else { return };
    let (stock, _) = Model::load(&path, false, true);
    let (ours, _) = Model::load(&path, true, true);
    let (other, _) = Model::load(&path, true, true);
    let tokens = ours.tokenize(PROMPT);
    let models = [&stock, &ours, &ours, &other];
    let alone = models.map(|model| Context::new(model, 1).greedy(&tokens, 8));
    let together = std::thread::scope(|scope| {
        let run = |model| {
            let tokens = &tokens;
            scope.spawn(move || Context::new(model, 1).greedy(tokens, 8))
        };
        models.map(run).map(|thread| thread.join().unwrap())
    });
    assert_eq!(alone, together);
}
