//! CPU kernels of our own behind llama.cpp's CPU backend.

pub mod attention;
pub mod dispatch;
#[cfg(feature = "ggml")]
pub mod ggml;
pub mod matmul;
mod quantize;
