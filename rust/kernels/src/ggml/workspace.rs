//! Memory that the threads of a backend compute with.

use std::cell::UnsafeCell;

use super::barrier::Barrier;
use super::memory::Memory;
use crate::matmul::Selected;

/// Threads of a backend before anybody has said how many
/// (GGML_DEFAULT_N_THREADS).
const DEFAULT_THREADS: usize = 4;

/// What the nodes of one backend's graphs compute with; used by one graph at a
/// time, and by one node after the other.
pub(super) struct Workspace {
    /// Of all threads.
    shared: Memory,
    /// Of each thread.
    own: Vec<UnsafeCell<Own>>,
    pub barrier: Barrier,
}

// SAFETY: thread i of a graph uses `own[i]` only; who asks for `shared` answers
// for what its threads do with it.
unsafe impl Sync for Workspace {}

/// What a thread keeps for itself.
#[derive(Default)]
pub(super) struct Own {
    /// Quantized rows, if there are few.
    pub rows: Memory,
    /// The norm of a row.
    pub normed: Vec<f32>,
    pub selection: Selection,
}

/// The rows of each expert, back to back, and where they start.
#[derive(Default)]
pub(super) struct Selection {
    pub rows: Vec<Selected>,
    pub starts: Vec<usize>,
}

impl Workspace {
    pub fn new() -> Workspace {
        let mut workspace = Workspace {
            shared: Memory::default(),
            own: Vec::new(),
            barrier: Barrier::default(),
        };
        workspace.set_threads(DEFAULT_THREADS);
        workspace
    }

    /// Graphs will be computed by up to so many threads.
    pub fn set_threads(&mut self, threads: usize) {
        self.own.resize_with(threads, UnsafeCell::default);
    }

    /// Graphs are computed by up to so many threads.
    pub fn threads(&self) -> usize {
        self.own.len()
    }

    /// Makes room in the memory of all threads; `None` if there is not enough.
    pub fn reserve_shared(&mut self, bytes: usize) -> Option<()> {
        self.shared.reserve(bytes)
    }

    /// The memory of all threads, zeroed when it was new, aligned to 64 bytes.
    pub fn shared(&self) -> *mut u8 {
        self.shared.as_ptr()
    }

    /// The memory of a thread.
    ///
    /// # Safety
    /// Called by that thread alone, which does not have it yet.
    #[expect(clippy::mut_from_ref, reason = "of a cell")]
    pub unsafe fn own(&self, thread: usize) -> &mut Own {
        // SAFETY: forwarded.
        unsafe { &mut *self.own[thread].get() }
    }
}
