//! A hand on the scripted model: a gate in front of each decode, and what can
//! be seen from outside.

use std::sync::{Condvar, Mutex, MutexGuard};

use crate::model::Row;

/// Steps the model, and watches it. The gate is open until [`Control::hold`].
#[derive(Debug, Default)]
pub struct Control {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    held: bool,
    /// Decodes that may pass although the gate is held.
    permits: usize,
    /// Decodes that reached the gate.
    reached: usize,
    used_cells: usize,
    scattered_cells: usize,
    /// The batches at the gate, if they are recorded.
    batches: Option<Vec<Vec<Row>>>,
}

impl Control {
    /// From now on every decode waits at the gate for a permit.
    pub fn hold(&self) {
        self.state().held = true;
    }

    /// Lets `count` more decodes pass.
    pub fn allow(&self, count: usize) {
        self.state().permits += count;
        self.changed.notify_all();
    }

    /// Lets all decodes pass.
    pub fn open(&self) {
        self.state().held = false;
        self.changed.notify_all();
    }

    /// Waits until the `nth` decode since the start, counted from 1, is at the
    /// gate.
    pub fn reached(&self, nth: usize) {
        drop(
            self.changed
                .wait_while(self.state(), |state| state.reached < nth)
                .expect("no panic"),
        );
    }

    /// Cells in use, as of the last call that changed them.
    pub fn used_cells(&self) -> usize {
        self.state().used_cells
    }

    /// Cells so far that were given one by one, because no block was free.
    pub fn scattered_cells(&self) -> usize {
        self.state().scattered_cells
    }

    /// From now on batches are recorded.
    pub fn record(&self) {
        self.state().batches.get_or_insert_default();
    }

    /// The batches recorded so far, failed ones included.
    pub fn batches(&self) -> Vec<Vec<Row>> {
        self.state().batches.clone().unwrap_or_default()
    }

    /// A decode comes to the gate, and waits there if it must.
    pub(super) fn pass(&self, rows: &[Row]) {
        let mut state = self.state();
        state.reached += 1;
        if let Some(batches) = &mut state.batches {
            batches.push(rows.to_vec());
        }
        self.changed.notify_all();
        let mut state = self
            .changed
            .wait_while(state, |state| state.held && state.permits == 0)
            .expect("no panic under the lock");
        state.permits = state.permits.saturating_sub(1);
    }

    pub(super) fn report_cells(&self, used: usize) {
        self.state().used_cells = used;
    }

    pub(super) fn report_scattered(&self, cells: usize) {
        self.state().scattered_cells = cells;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under the lock")
    }
}
