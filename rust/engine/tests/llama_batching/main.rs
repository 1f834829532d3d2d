//! Requests beside each other, or after each other in the same cells, get what
//! each gets alone, with a real model and a small one with sliding windows, with
//! our kernels and with llama.cpp's. `LLM_API_TEST_MODEL` names a GGUF file.
//!
//! Another batch shape, or a prompt computed in other pieces, rounds
//! otherwise, and where two tokens are nearly as likely that can turn the
//! choice. So it is not the texts that are compared but every choice: after
//! the same tokens comes the same token, about as far ahead, unless it was a
//! near tie.
#![cfg(feature = "llama")]

mod beside;
mod gguf;
mod harness;
mod lookup;
mod prefix;
mod recurrent;
mod windows;
