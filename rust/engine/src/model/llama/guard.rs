//! A crash of llama.cpp on a model file, made an orderly end of the program.
//!
//! llama.cpp checks the structure of a GGUF file well, but some values inside
//! it end in an assertion or a stray exception, and both end the process by a
//! signal. A program asks for [`end_on_crash`] and then ends with a reason and
//! exit status 1 in such a case. Loading twice, the first time in a child
//! process, would do the same at the price of a second start. A library leaves
//! its process alone: there a crash stays a crash.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use llama_cpp_sys_2 as sys;

use super::backend::path_to_c;

/// What a crash ends with: an assertion or exception, or a fault.
const SIGNALS: [c_int; 5] = [
    libc::SIGABRT,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
];

static WANTED: AtomicBool = AtomicBool::new(false);
/// The file that is being loaded, for the message; null while none is.
static FILE: AtomicPtr<c_char> = AtomicPtr::new(std::ptr::null_mut());

/// From now on a crash while a model is loaded prints `FATAL ERROR` and the
/// reason, and ends the process with exit status 1.
pub fn end_on_crash() {
    WANTED.store(true, Ordering::Release);
}

/// Signal handlers and ggml's abort callback, for as long as it lives.
pub(super) struct Guard {
    before: [libc::sigaction; SIGNALS.len()],
    callback: sys::ggml_abort_callback_t,
}

impl Guard {
    /// None if nobody asked for it, or another model is being loaded.
    pub(super) fn watch(path: &Path) -> Option<Self> {
        if !WANTED.load(Ordering::Acquire) {
            return None;
        }
        let name = path_to_c(path)?.into_raw();
        let null = std::ptr::null_mut();
        if FILE
            .compare_exchange(null, name, Ordering::AcqRel, Ordering::Acquire)
            .is_err()
        {
            // SAFETY: `name` is from `into_raw`, and nobody else has it.
            drop(unsafe { CString::from_raw(name) });
            return None;
        }
        let before = SIGNALS.map(|signal| {
            // SAFETY: zero is a valid `sigaction` and an empty set of signals;
            // `on_signal` calls only what a signal handler may.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_signal as extern "C" fn(c_int) as usize;
                action.sa_flags = libc::SA_ONSTACK;
                let mut before = MaybeUninit::<libc::sigaction>::zeroed();
                libc::sigaction(signal, &action, before.as_mut_ptr());
                before.assume_init()
            }
        });
        // SAFETY: the callback lives as long as the program.
        let callback = unsafe { sys::ggml_set_abort_callback(Some(on_abort)) };
        Some(Self { before, callback })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        for (signal, before) in SIGNALS.into_iter().zip(&self.before) {
            // SAFETY: what `sigaction` returned for the same signal.
            unsafe { libc::sigaction(signal, before, std::ptr::null_mut()) };
        }
        // SAFETY: what `ggml_set_abort_callback` returned.
        unsafe { sys::ggml_set_abort_callback(self.callback) };
        let name = FILE.swap(std::ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: from `into_raw` in `watch`; a handler that still runs has
        // ended the process before it could come back.
        drop(unsafe { CString::from_raw(name) });
    }
}

extern "C" fn on_signal(signal: c_int) {
    end(match signal {
        libc::SIGSEGV | libc::SIGBUS => c"llama.cpp read beyond its memory",
        libc::SIGFPE => c"llama.cpp divided by zero",
        _ => c"llama.cpp gave up on it",
    })
}

unsafe extern "C" fn on_abort(message: *const c_char) {
    // SAFETY: ggml passes a C string that lives through the call.
    let message = unsafe { CStr::from_ptr(message) };
    // "folder/file.cpp:12: assertion": where it was built is of no use.
    let bytes = message.to_bytes_with_nul();
    let colon = bytes.iter().position(|&byte| byte == b':').unwrap_or(0);
    let slash = bytes[..colon].iter().rposition(|&byte| byte == b'/');
    let short = &bytes[slash.map_or(0, |at| at + 1)..];
    end(CStr::from_bytes_with_nul(short).unwrap_or(message))
}

/// Ends the process. Calls nothing that a signal handler may not: no
/// allocation, no lock, no destructor.
fn end(reason: &CStr) -> ! {
    let file = FILE.load(Ordering::Acquire);
    let file = if file.is_null() {
        c"?"
    } else {
        // SAFETY: not freed while the handlers are in place.
        unsafe { CStr::from_ptr(file) }
    };
    let parts = [
        c"\nFATAL ERROR: the model cannot be loaded: ",
        file,
        c": damaged or not supported: ",
        reason,
        c"\n",
    ];
    for part in parts {
        let bytes = part.to_bytes();
        // SAFETY: a buffer of that size; `write` and `_exit` are
        // async-signal-safe.
        unsafe { libc::write(2, bytes.as_ptr().cast::<c_void>(), bytes.len()) };
    }
    // SAFETY: as above.
    unsafe { libc::_exit(1) }
}
