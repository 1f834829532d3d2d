//! A load in progress, as seen by those who wait for it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Says how far a loader is, and stops it. Shared by the loader and whoever
/// watches it; each call returns at once, on any thread.
#[derive(Debug, Default)]
pub struct Loading {
    /// An `f32`, by its bits.
    progress: AtomicU32,
    cancelled: AtomicBool,
}

impl Loading {
    /// The share of the weights that are loaded, from 0 to 1. At 1 there may
    /// still be a little left to do.
    pub fn progress(&self) -> f32 {
        f32::from_bits(self.progress.load(Ordering::Relaxed))
    }

    /// Stops the load, which then fails with [`crate::Error::Closed`]. No
    /// effect on one that has ended.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether [`Loading::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Takes the loader's word; false if it shall stop.
    pub fn report(&self, progress: f32) -> bool {
        self.progress.store(progress.to_bits(), Ordering::Relaxed);
        !self.is_cancelled()
    }
}
