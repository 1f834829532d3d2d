//! The way out: the engine thread publishes the events of a step as one batch
//! and rings one bell; the caller drains all of them at once, when it likes.

use std::collections::HashMap;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::lock;
use crate::request::{Event, EventKind, RequestId};

/// Bytes of text that one request may have undrained. A request over it is
/// cancelled: its reader has stopped reading.
const MAX_UNDRAINED: usize = 1 << 20;

pub(super) struct Outbox {
    state: Mutex<State>,
    filled: Condvar,
    bell: Bell,
}

#[derive(Default)]
struct State {
    events: Vec<Event>,
    /// Where the undrained delta of a request is in `events`.
    deltas: HashMap<RequestId, usize>,
}

impl Outbox {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            state: Mutex::default(),
            filled: Condvar::new(),
            bell: Bell::new()?,
        })
    }

    /// Publishes a batch and empties it. Text of a request that has an
    /// undrained delta is appended to that one, so a slow caller finds longer
    /// deltas, not more of them. Returns the requests whose text is over the
    /// bound.
    pub fn publish(&self, batch: &mut Vec<Event>) -> Vec<RequestId> {
        let mut slow = Vec::new();
        if batch.is_empty() {
            return slow;
        }
        let mut guard = lock(&self.state);
        let State { events, deltas } = &mut *guard;
        let was_empty = events.is_empty();
        for event in batch.drain(..) {
            let EventKind::Delta(text) = &event.kind else {
                events.push(event);
                continue;
            };
            let at = *deltas.entry(event.id).or_insert(events.len());
            match events.get_mut(at).map(|earlier| &mut earlier.kind) {
                Some(EventKind::Delta(undrained)) => {
                    undrained.push_str(text);
                    if undrained.len() > MAX_UNDRAINED {
                        slow.push(event.id);
                    }
                }
                _ => events.push(event),
            }
        }
        // Under the lock, so that the bell is set exactly while there are
        // events.
        if was_empty {
            self.bell.set();
            self.filled.notify_all();
        }
        slow
    }

    /// Moves all events to the end of `into`.
    pub fn drain(&self, into: &mut Vec<Event>) {
        let mut state = lock(&self.state);
        if !state.events.is_empty() {
            into.append(&mut state.events);
            state.deltas.clear();
            self.bell.clear();
        }
    }

    /// Waits until there are events; false if the time ran out.
    pub fn wait(&self, timeout: Duration) -> bool {
        let state = lock(&self.state);
        let state = self
            .filled
            .wait_timeout_while(state, timeout, |state| state.events.is_empty());
        let (state, _) = state.unwrap_or_else(PoisonError::into_inner);
        !state.events.is_empty()
    }

    pub fn bell(&self) -> RawFd {
        self.bell.reader.as_raw_fd()
    }
}

/// A pipe that holds one byte while it is set: a descriptor for event loops.
/// It is set and cleared in turn, so neither end ever blocks.
struct Bell {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Bell {
    fn new() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        Ok(Self { reader, writer })
    }

    fn set(&self) {
        (&self.writer)
            .write_all(&[1])
            .expect("the pipe's reader is open");
    }

    fn clear(&self) {
        (&self.reader)
            .read_exact(&mut [0])
            .expect("the pipe's writer is open");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{FinishReason, Usage};

    fn delta(id: RequestId, text: &str) -> Event {
        Event {
            id,
            kind: EventKind::Delta(text.into()),
        }
    }

    fn end(id: RequestId) -> Event {
        let kind = EventKind::End {
            reason: FinishReason::Stop,
            usage: Usage::default(),
        };
        Event { id, kind }
    }

    #[test]
    fn undrained_deltas_of_a_request_become_one() {
        let outbox = Outbox::new().unwrap();
        outbox.publish(&mut vec![delta(1, "a"), delta(2, "x")]);
        outbox.publish(&mut vec![
            delta(2, "y"),
            delta(3, "-"),
            delta(1, "b"),
            end(1),
        ]);
        outbox.publish(&mut vec![delta(2, "z")]);
        let mut events = Vec::new();
        outbox.drain(&mut events);
        assert_eq!(
            events,
            [delta(1, "ab"), delta(2, "xyz"), delta(3, "-"), end(1)]
        );
        outbox.publish(&mut vec![delta(2, "!")]);
        outbox.drain(&mut events);
        assert_eq!(events[4..], [delta(2, "!")]);
    }

    #[test]
    fn a_request_whose_text_piles_up_is_named() {
        let outbox = Outbox::new().unwrap();
        let half = "x".repeat(MAX_UNDRAINED / 2);
        assert!(
            outbox
                .publish(&mut vec![delta(1, &half), delta(2, "x")])
                .is_empty()
        );
        assert!(
            outbox
                .publish(&mut vec![delta(1, &half), delta(2, "x")])
                .is_empty()
        );
        assert_eq!(outbox.publish(&mut vec![delta(1, "x"), delta(2, "x")]), [1]);
        outbox.drain(&mut Vec::new());
        assert!(outbox.publish(&mut vec![delta(1, &half)]).is_empty());
    }
}
