//! The way in: callers leave requests and cancels, the engine thread takes
//! all of them at the start of a step.

use std::sync::{Condvar, Mutex, PoisonError};

use super::lock;
use super::reply::Reply;
use crate::Error;
use crate::request::RequestId;

/// What arrived since the last step.
#[derive(Default)]
pub(super) struct Mail {
    /// In order of arrival, which is the order of the ids.
    pub requests: Vec<(RequestId, Reply)>,
    pub cancels: Vec<RequestId>,
}

pub(super) struct Inbox {
    /// Requests that may be held at once, running or not.
    capacity: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    mail: Mail,
    last_id: RequestId,
    /// Requests accepted and not ended yet.
    held: usize,
    /// Why nothing is accepted any more.
    closed: Option<Error>,
}

impl Inbox {
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Accepts a request, or says at once why not. `full` makes the error for
    /// a full queue.
    pub fn submit(&self, reply: Reply, full: impl FnOnce() -> Error) -> Result<RequestId, Error> {
        let mut state = lock(&self.state);
        if let Some(reason) = &state.closed {
            return Err(reason.clone());
        }
        if state.held == self.capacity {
            return Err(full());
        }
        state.held += 1;
        state.last_id += 1;
        let id = state.last_id;
        state.mail.requests.push((id, reply));
        self.changed.notify_one();
        Ok(id)
    }

    pub fn cancel(&self, id: RequestId) {
        let mut state = lock(&self.state);
        if state.closed.is_none() && id <= state.last_id {
            state.mail.cancels.push(id);
            self.changed.notify_one();
        }
    }

    /// Accepts nothing any more. The first reason stays.
    pub fn close(&self, reason: Error) {
        lock(&self.state).closed.get_or_insert(reason);
        self.changed.notify_one();
    }

    /// What arrived; waits for something to arrive if `idle`. `None` once the
    /// inbox is closed.
    pub fn take(&self, idle: bool) -> Option<Mail> {
        let state = lock(&self.state);
        let waiting = |state: &mut State| idle && state.closed.is_none() && state.mail.is_empty();
        let state = self.changed.wait_while(state, waiting);
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        match state.closed {
            None => Some(std::mem::take(&mut state.mail)),
            Some(_) => None,
        }
    }

    /// What arrived before the inbox was closed and nobody took.
    pub fn take_rest(&self) -> Mail {
        std::mem::take(&mut lock(&self.state).mail)
    }

    /// `count` requests ended and make place for others.
    pub fn ended(&self, count: usize) {
        lock(&self.state).held -= count;
    }

    /// Requests that arrived and were not taken yet.
    pub fn pending(&self) -> usize {
        lock(&self.state).mail.requests.len()
    }
}

impl Mail {
    fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.cancels.is_empty()
    }
}
