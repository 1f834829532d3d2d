//! Layers on another device beside our kernels: what the device takes is not
//! ours, and what it leaves is computed as without it.
//!
//! The device is one of ggml's RPC backend; llama.cpp treats it like a GPU.
//! `LLM_API_TEST_MODEL` names the GGUF file of a model with layers of one kind.
#![cfg(all(feature = "ggml", target_os = "linux"))]

#[path = "../vehicle/adapter.rs"]
mod adapter;
mod device;
#[path = "../vehicle/llama.rs"]
mod llama;

use device::Device;
use llama::{Adapter, Context, Model, argmax, divergence, test_model};
use llama_cpp_sys_2 as sys;
use llm_kernels::ggml::Report;

const PROMPT: &str = "The history of bread is long. The first bakers lived in Egypt, \
    where they mixed flour with water and left the dough in the sun, so that it rose by itself. \
    In Rome there were bakeries in every street, and the bread of the rich was white.";

/// Tokens at the end of the prompt that are decoded one by one.
const STEPS: usize = 6;

/// Mean divergence by the rounding of activations.
const ROUNDING: f64 = 0.02;

/// By how much a token may be less likely than the likeliest one, in logits,
/// so that rounding can make it the likeliest.
const NEAR_TIE: f32 = 0.5;

/// A model with its last `layers` on the device; the output counts as one.
fn load(path: &str, kernels: bool, device: &Device, layers: i32) -> (Model, Report) {
    let mut devices = device.list();
    Model::load_by(path, kernels, |params| {
        params.devices = devices.as_mut_ptr();
        params.n_gpu_layers = layers;
    })
}

/// The logits after each token of a prompt whose last tokens are steps.
fn logits(context: &mut Context, tokens: &[i32]) -> Vec<Vec<f32>> {
    let prompt = tokens.len() - STEPS;
    let mut logits = context.decode(&tokens[..prompt], 0);
    for position in prompt..tokens.len() {
        logits.extend(context.decode(&tokens[position..=position], position));
    }
    logits
}

fn count(types: &std::collections::BTreeMap<String, usize>) -> usize {
    types.values().sum()
}

fn layers_of(model: &Model) -> i32 {
    let architecture = model.value(c"general.architecture");
    let key = std::ffi::CString::new(format!("{architecture}.block_count")).unwrap();
    model.value(&key).parse().unwrap()
}

#[test]
fn layers_on_a_device_are_not_ours_and_the_others_are() {
    let Some(path) = test_model() else { return };
    let Some(device) = Device::get() else { return };
    let (stock, _) = Model::load(&path, false, true);
    let (alone, whole) = Model::load(&path, true, true);
    let all = layers_of(&alone);
    let tokens = alone.tokenize(PROMPT);
    // So long that the device would take its products over, could it read the
    // weights.
    assert!(tokens.len() - STEPS >= 32);
    let expected = logits(&mut Context::new(&stock, 2), &tokens);
    let per_layer = (count(&whole.taken) - 1) / all as usize;

    for on_device in [0, 1, all / 3, all + 1] {
        let (split, report) = load(&path, true, &device, on_device);
        let (split_stock, stock_report) = load(&path, false, &device, on_device);
        assert_eq!(stock_report, Report::default());
        // The first to go is the output.
        let layers = all - (on_device - 1).max(0);
        let taken = layers as usize * per_layer + usize::from(on_device == 0);
        assert_eq!(count(&report.taken), taken, "{on_device} layers: {report}");
        if on_device == 0 {
            assert_eq!(report, whole);
        }

        let found = logits(&mut Context::new(&split, 2), &tokens);
        let stock_found = logits(&mut Context::new(&split_stock, 2), &tokens);
        for (name, other) in [("the same split", &stock_found), ("no split", &expected)] {
            let kl = divergence(other, &found);
            assert!(kl < ROUNDING, "{on_device} layers, {name}: {kl}");
        }
        if on_device == all + 1 {
            assert!(found == stock_found, "nothing is left for us");
            // The table of token embeddings stays with the CPU.
            assert_eq!(count(&report.left), 1, "{report}");
        }

        let reply = Context::new(&split, 2).greedy(&tokens, 12);
        let text = [&tokens[..], &reply[..]].concat();
        let judged = Context::new(&split_stock, 2).decode(&text, 0);
        for (logits, &token) in judged[tokens.len() - 1..].iter().zip(&reply) {
            let margin = logits[argmax(logits) as usize] - logits[token as usize];
            assert!(margin < NEAR_TIE, "{on_device} layers: {margin}");
        }
    }
}

#[test]
fn caches_may_stay_with_the_cpu() {
    let Some(path) = test_model() else { return };
    let Some(device) = Device::get() else { return };
    let (split, _) = load(&path, true, &device, 11);
    let (stock, _) = load(&path, false, &device, 11);
    let tokens = split.tokenize(PROMPT);
    let [found, expected] = [&split, &stock].map(|model| {
        let change = |params: &mut sys::llama_context_params| params.offload_kqv = false;
        logits(&mut Context::new_by(model, 2, change), &tokens)
    });
    let kl = divergence(&expected, &found);
    assert!(kl < ROUNDING, "{kl}");
}

#[test]
fn contexts_do_not_disturb_each_other() {
    let Some(path) = test_model() else { return };
    let Some(device) = Device::get() else { return };
    let (split, _) = load(&path, true, &device, 11);
    let (more, _) = load(&path, true, &device, 25);
    let (alone, _) = Model::load(&path, true, true);
    let tokens = alone.tokenize(PROMPT);
    let models = [&split, &split, &more, &alone];
    // Each reads the text from another token on.
    let start = |i: usize| &tokens[i..tokens.len() - 8];
    let step = |context: &mut Context, i: usize, n: usize| {
        let position = tokens.len() - 8 + n;
        context.decode(&tokens[position..=position], position - i)
    };
    let separate: Vec<_> = (0..models.len())
        .map(|i| {
            let mut context = Context::new(models[i], 2);
            let mut found = context.decode(start(i), 0);
            (0..STEPS).for_each(|n| found.extend(step(&mut context, i, n)));
            found
        })
        .collect();
    let mut contexts = models.map(|model| Context::new(model, 2));
    let mut found: Vec<_> = (0..models.len())
        .map(|i| contexts[i].decode(start(i), 0))
        .collect();
    for n in 0..STEPS {
        for i in 0..models.len() {
            found[i].extend(step(&mut contexts[i], i, n));
        }
    }
    for (i, (separate, found)) in separate.iter().zip(&found).enumerate() {
        assert!(separate == found, "context {i}");
    }
}

#[test]
fn adapters_of_layers_on_both_sides() {
    let Some(path) = test_model() else { return };
    let Some(device) = Device::get() else { return };
    let (stock, _) = Model::load(&path, false, true);
    if stock.value(c"general.architecture") != "llama" {
        return eprintln!("not run: the adapter is one for SmolLM2");
    }
    // The adapter changes the first eight layers, of which four are ours.
    let (split, _) = load(&path, true, &device, layers_of(&stock) + 1 - 4);
    let file = std::env::temp_dir().join(format!("llm-kernels-rpc-{}.gguf", std::process::id()));
    adapter::write(&file, &stock);
    let tokens = stock.tokenize(PROMPT);
    let [(before, expected), (_, found)] = [&stock, &split].map(|model| {
        let adapter = Adapter::load(model, &file);
        let mut context = Context::new(model, 2);
        let before = logits(&mut context, &tokens);
        context.clear();
        context.set_adapter(Some(&adapter));
        let with = logits(&mut context, &tokens);
        context.set_adapter(None);
        (before, with)
    });
    std::fs::remove_file(&file).unwrap();
    adapter::assert_applied(&before, &expected, &found);
}

#[test]
fn memory_of_the_host_that_a_device_reaches_comes_before_ours() {
    let Some(path) = test_model() else { return };
    let Some(device) = Device::get() else { return };
    device.with_host_memory(|| {
        for on_device in [0, 11] {
            let (split, report) = load(&path, true, &device, on_device);
            let (stock, _) = load(&path, false, &device, on_device);
            assert_eq!(report, Report::default(), "llama.cpp did not ask");
            let tokens = split.tokenize(PROMPT);
            let [found, expected] =
                [&split, &stock].map(|model| logits(&mut Context::new(model, 2), &tokens));
            assert!(found == expected, "{on_device} layers");
        }
    });
}
