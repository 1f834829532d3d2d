//! Work of a step that is shared between threads.
//!
//! The helpers are started for each time and end with it. A pool that waits
//! would begin 20 µs sooner, and be one more thing to stop, to rebuild after a
//! panic and to keep from spinning beside llama.cpp's threads; so little is
//! shared only where there is much more to win.

use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Does `work` on every item, each once and in any order, on as many threads
/// as there are `buffers`, this one among them; each has a buffer to itself. A
/// panic in `work` comes out here, after all threads have ended.
pub(super) fn share<T: Send, B: Send>(
    items: &mut [T],
    buffers: &mut [B],
    work: impl Fn(&mut T, &mut B) + Sync,
) {
    // Taken one by one: helpers begin late, and items differ.
    let items = Mutex::new(items.iter_mut());
    let drain = |buffer: &mut B| {
        let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
        while let Some(item) = next() {
            work(item, buffer);
        }
    };
    let Some((first, others)) = buffers.split_first_mut() else {
        panic!("no buffer for this thread");
    };
    thread::scope(|scope| {
        let helpers: Vec<_> = others
            .iter_mut()
            .filter_map(|buffer| {
                let name = thread::current().name().unwrap_or_default().to_owned();
                let helper = thread::Builder::new().name(name);
                // Without another thread, this one does it all.
                helper.spawn_scoped(scope, || drain(buffer)).ok()
            })
            .collect();
        drain(first);
        for helper in helpers {
            if let Err(panic) = helper.join() {
                resume_unwind(panic);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn every_item_is_worked_on_once() {
        for threads in 1..=5 {
            for count in [0, 1, 2, 7, 100] {
                let mut items: Vec<usize> = (0..count).collect();
                let mut buffers = vec![0; threads];
                share(&mut items, &mut buffers, |item, worked| {
                    *item += 1000;
                    *worked += 1;
                });
                assert!(items.into_iter().eq(1000..1000 + count));
                assert_eq!(buffers.iter().sum::<usize>(), count);
            }
        }
    }

    #[test]
    fn threads_work_at_the_same_time() {
        let all = Barrier::new(3);
        share(&mut [(); 3], &mut [(); 3], |(), ()| {
            all.wait();
        });
    }

    #[test]
    fn a_panic_on_any_thread_comes_out() {
        // With one item a thread, and all of them there, each thread has one.
        let all = Barrier::new(3);
        for bad in 0..3 {
            let mut items = [0, 1, 2];
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                share(&mut items, &mut [(); 3], |item, ()| {
                    all.wait();
                    assert!(*item != bad, "item {bad}");
                });
            }));
            let panic = outcome.expect_err("a panic");
            let message = panic.downcast_ref::<String>().expect("its message");
            assert_eq!(*message, format!("item {bad}"));
        }
    }
}
