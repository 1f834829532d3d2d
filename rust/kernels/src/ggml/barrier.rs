//! A barrier for threads that all run.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU64, Ordering};

/// Rounds of waiting before the processor is given to another thread: on a
/// busy machine that may be the one that everybody waits for.
const SPINS: u32 = 2000;

/// Makes threads wait for each other, again and again. For waits of
/// microseconds: nobody sleeps.
#[derive(Default)]
pub(super) struct Barrier {
    /// How many threads have come, over all rounds.
    arrived: AtomicU64,
}

impl Barrier {
    /// Returns when `threads` threads have called it; all rounds of a barrier
    /// have the same number of threads, unless nobody waits.
    pub fn wait(&self, threads: usize) {
        let threads = threads as u64;
        let before = self.arrived.fetch_add(1, Ordering::AcqRel);
        let goal = (before / threads + 1) * threads;
        let mut spins = 0;
        while self.arrived.load(Ordering::Acquire) < goal {
            if spins < SPINS {
                spins += 1;
                spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }

    /// Begins anew, for another number of threads; nobody waits.
    pub fn reset(&mut self) {
        *self.arrived.get_mut() = 0;
    }
}
