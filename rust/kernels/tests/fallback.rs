//! What is left of us when the self-test fails. Alone in its process: the
//! kernels are installed once.
#![cfg(feature = "ggml")]

#[path = "vehicle/llama.rs"]
mod llama;

use llama_cpp_sys_2 as sys;
use llm_kernels::ggml::install;

/// Words of ggml's structs for a device, a registry, and a backend up to what
/// differs between two of them.
const DEVICE: usize = 15 + 2;
const REGISTRY: usize = 1 + 4 + 1;
const BACKEND: usize = 1 + 16 + 1;

/// The pointers of the CPU device, of its registry and of a new backend.
fn pointers() -> Vec<usize> {
    unsafe {
        let device = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
        let registry = sys::ggml_backend_dev_backend_reg(device);
        let backend = sys::ggml_backend_dev_init(device, std::ptr::null());
        let mut words = Vec::new();
        for (object, count) in [
            (device.cast::<usize>(), DEVICE),
            (registry.cast(), REGISTRY),
            (backend.cast(), BACKEND),
        ] {
            words.extend_from_slice(std::slice::from_raw_parts(object, count));
        }
        sys::ggml_backend_free(backend);
        words
    }
}

#[test]
fn pointers_are_put_back_when_the_self_test_fails() {
    llama::load_backends();
    let before = pointers();
    assert_eq!(install(Some("it is a test")), Err("it is a test".into()));
    assert_eq!(pointers(), before);
    // Once a process: who asks again hears the same.
    assert_eq!(install(None), Err("it is a test".into()));
}
