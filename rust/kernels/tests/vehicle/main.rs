//! Our kernels behind llama.cpp's CPU backend.
#![cfg(feature = "ggml")]

mod adapter;
mod bench;
mod joined;
mod llama;
mod mixture;
mod model;
mod products;
