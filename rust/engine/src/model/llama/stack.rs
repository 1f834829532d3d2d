//! Room for the recursion of llama.cpp's tokenizers.
//!
//! Some pre-tokenizers are a `std::regex`, which in libstdc++ calls itself once
//! a character that matches: 32 kB of one letter overflow a stack of 8 MiB.

use std::panic::resume_unwind;
use std::thread;

use crate::Error;

/// So much text fits onto any thread's stack.
const SHORT_BYTES: usize = 1 << 10;

/// Four times what was measured for a byte of text.
const STACK_PER_BYTE: usize = 2 << 10;

/// For everything but the recursion.
const STACK_BASE: usize = 4 << 20;

/// Runs `work`, which handles `bytes` bytes of text, on a stack that is deep
/// enough. The stack is mapped, and takes memory only as far as it is used.
pub(super) fn deep<T: Send>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, Error> + Send,
) -> Result<T, Error> {
    if bytes <= SHORT_BYTES {
        return work();
    }
    thread::scope(|scope| {
        thread::Builder::new()
            .stack_size(STACK_BASE + bytes.saturating_mul(STACK_PER_BYTE))
            .spawn_scoped(scope, work)
            .map_err(|error| {
                Error::Unsupported(format!("no memory for a prompt of {bytes} bytes: {error}"))
            })?
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic))
    })
}
