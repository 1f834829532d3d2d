//! Memory after loading. Alone in its process: it looks at all that is mapped.
#![cfg(all(feature = "ggml", target_os = "linux"))]

#[path = "vehicle/llama.rs"]
mod llama;

use llama::{Model, test_model};

/// What is packed is not kept a second time as pages of the file.
#[test]
fn pages_that_were_packed_are_given_back() {
    let Some(path) = test_model() else { return };
    let mapped = || {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let name = path.rsplit('/').next().unwrap();
        let mut is_model = false;
        let mut kib = 0_u64;
        for line in maps.lines() {
            let mut fields = line.split_whitespace();
            match fields.next() {
                Some("Rss:") if is_model => {
                    kib += fields.next().unwrap().parse::<u64>().unwrap();
                }
                Some(range) if range.contains('-') => is_model = line.ends_with(name),
                _ => {}
            }
        }
        kib * 1024
    };
    let size = std::fs::metadata(&path).unwrap().len();
    let before = mapped();
    let (_model, _) = Model::load(&path, true, true);
    let grown = mapped().saturating_sub(before);
    assert!(grown < size / 2, "{grown} bytes of {size} are still mapped");
}
