//! CPU kernels of our own behind llama.cpp's CPU backend.

pub mod attention;
pub mod dispatch;
pub mod gate;
#[cfg(feature = "ggml")]
pub mod ggml;
pub mod matmul;
pub mod norm;
mod quantize;
mod simd;
