//! The vehicle: puts the kernels behind llama.cpp's CPU backend at run time.
//!
//! ggml's CPU device and its registry are structs of function pointers in
//! writable memory. [`install`] replaces a few of them (`hooks.rs`):
//!
//! ```text
//! load     llama.cpp asks which buffer types weights may be in: ours comes
//!          first, then ggml's own. For each weight it asks whether the CPU
//!          can multiply with it there (product.rs). What it then writes into
//!          our buffer is packed (buffer.rs, weights.rs).
//! compute  our `graph_compute` hands ggml a graph in which products with packed
//!          weights are custom operations (graph.rs), so that they run in
//!          ggml's threads (product.rs), with what is beside them (fuse.rs).
//! ```
//!
//! What we do not take stays as it is. No C++ object is touched: `bindings.rs`
//! has the C structs, which are checked before anything is replaced, and
//! `self_test.rs` compares results before any model depends on them.

mod attention;
mod barrier;
mod bindings;
mod buffer;
mod experts;
mod fuse;
mod graph;
mod hooks;
mod memory;
mod product;
mod report;
mod self_test;
mod tensor;
mod weights;
mod workspace;

pub use hooks::install;
pub use report::{Left, Report, observe, take_left};
