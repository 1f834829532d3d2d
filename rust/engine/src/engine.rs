//! The engine: a thread that owns the model, and the handle to it.
//!
//! Callers never wait for the thread, nor the thread for a caller: requests
//! and cancels go through the inbox, events through the outbox. On the thread,
//! `Worker::step` is the whole loop.

mod inbox;
mod measures;
mod outbox;
mod reply;
mod share;
mod thread;
mod worker;

use std::os::fd::RawFd;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use self::inbox::Inbox;
pub use self::measures::{Histogram, Measures};
use self::outbox::Outbox;
use self::reply::Reply;
use crate::Error;
use crate::model::{Loader, ModelInfo, Vocab};
use crate::request::{Event, Request, RequestId};

/// Sizes of the engine, in tokens (one token takes one cell) and requests.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Tokens that one request may use, prompt and reply together; at least 2.
    pub context: u32,
    /// Cells of the pool that all running requests share; at least `context`,
    /// and no more than the model has.
    pub pool: u32,
    /// Requests that run at once; at least 1.
    pub parallel: u32,
    /// Requests held beyond `parallel` before one is refused.
    pub queue: u32,
    /// Whether what a text has said before is a draft of what it says next.
    pub prompt_lookup: bool,
}

/// State and counters of the engine, as of its latest step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests that have not started.
    pub waiting: usize,
    /// Requests that are being computed.
    pub running: usize,
    /// Requests that had to give their cells back and will go on.
    pub paused: usize,
    /// Cells set aside for running requests.
    pub cells_used: usize,
    /// Cells that hold beginnings for requests to come, and are given to
    /// whoever needs them.
    pub cells_cached: usize,
    /// Cells of the pool.
    pub cells_total: usize,
    /// Decodes that succeeded.
    pub decodes: u64,
    /// Tokens computed by them: prompts, replies, and again after pauses. Of
    /// drafts those only that were right.
    pub computed_tokens: u64,
    /// Tokens sampled.
    pub sampled_tokens: u64,
    /// Tokens drafted by prompt lookup.
    pub drafted_tokens: u64,
    /// Those of them that the model said, too.
    pub accepted_tokens: u64,
    /// Requests that started with tokens which were in cells already.
    pub prefix_hits: u64,
    /// Those tokens, of all of them.
    pub prefix_tokens: u64,
    /// Cached cells given to others.
    pub cells_evicted: u64,
    /// Pauses so far.
    pub pauses: u64,
    /// Context shifts so far.
    pub shifts: u64,
    /// Contexts made again after a panic.
    pub rebuilds: u64,
    /// Requests ended by the model, a limit or a stop rule.
    pub completed: u64,
    /// Requests ended by a cancel.
    pub cancelled: u64,
    /// Requests ended by an error.
    pub failed: u64,
}

/// Whether requests are computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// They are.
    #[default]
    Ready,
    /// Not now: the context broke, and another one is being made. They wait.
    Rebuilding,
    /// Not any more: no context could be made that worked. They are refused.
    Failed,
}

/// What the thread and the handle share.
struct Shared {
    inbox: Inbox,
    outbox: Outbox,
    stats: Mutex<Stats>,
    measures: Mutex<Measures>,
    state: Mutex<State>,
}

/// A running engine. All methods but [`Engine::wait`], [`Engine::start`] and
/// [`Engine::close`] return at once, from any thread.
pub struct Engine {
    config: Config,
    shared: Arc<Shared>,
    vocab: Arc<dyn Vocab>,
    info: ModelInfo,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the thread, and returns when it has loaded the model.
    ///
    /// # Errors
    /// Those of the loader; [`Error::Unsupported`] if the sizes do not fit
    /// together or the model is made for smaller ones.
    pub fn start(config: Config, loader: impl Loader) -> Result<Self, Error> {
        let outbox = Outbox::new().map_err(|error| Error::Unsupported(error.to_string()))?;
        let shared = Arc::new(Shared {
            inbox: Inbox::new(config.parallel as usize + config.queue as usize),
            outbox,
            stats: Mutex::default(),
            measures: Mutex::default(),
            state: Mutex::default(),
        });
        let (ready, loaded) = sync_channel(1);
        let thread = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("llm-engine".into())
                .spawn(move || thread::run(config, loader, shared, ready))
                .map_err(|error| Error::Unsupported(error.to_string()))?
        };
        // Errs only if the thread ended without a word.
        let (vocab, info) = loaded.recv().unwrap_or(Err(Error::Closed))?;
        Ok(Self {
            config,
            shared,
            vocab,
            info,
            thread: Some(thread),
        })
    }

    /// The model's vocabulary, for prompts.
    pub fn vocab(&self) -> Arc<dyn Vocab> {
        Arc::clone(&self.vocab)
    }

    /// Facts about the model.
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// Accepts a request; its events carry the id returned.
    ///
    /// # Errors
    /// [`Error::PromptEmpty`], [`Error::PromptTooLong`] (the reply needs room
    /// for one token), [`Error::Unsupported`] (a context shift with a model
    /// that cannot), [`Error::QueueFull`], [`Error::Closed`], or what made the
    /// engine give up.
    pub fn submit(&self, request: Request) -> Result<RequestId, Error> {
        let tokens = request.prompt.len();
        let context = self.config.context as usize;
        if tokens == 0 {
            return Err(Error::PromptEmpty);
        }
        if tokens >= context {
            return Err(Error::PromptTooLong { tokens, context });
        }
        if request.n_keep > 0 && !self.info.can_shift {
            return Err(Error::Unsupported(
                "this model cannot shift its context: n-keep must be 0".into(),
            ));
        }
        let reply = Reply::new(request, &*self.vocab, context);
        let queue = self.config.queue as usize;
        self.shared
            .inbox
            .submit(reply, || Error::QueueFull { queue })
    }

    /// Ends a request before the next step, wherever it is; its `End` follows.
    /// No effect on one that has ended.
    pub fn cancel(&self, id: RequestId) {
        self.shared.inbox.cancel(id);
    }

    /// Appends all events since the last call to `into`. In it, a request has
    /// at most one delta and, last, at most one end.
    pub fn drain(&self, into: &mut Vec<Event>) {
        self.shared.outbox.drain(into);
    }

    /// A descriptor to be polled, never read: readable while there is
    /// something to drain. Open as long as the engine is.
    pub fn bell(&self) -> RawFd {
        self.shared.outbox.bell()
    }

    /// Waits until there is something to drain; false if the time ran out.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.shared.outbox.wait(timeout)
    }

    /// State and counters as of the latest step.
    pub fn stats(&self) -> Stats {
        let mut stats = *lock(&self.shared.stats);
        stats.waiting += self.shared.inbox.pending();
        stats
    }

    /// What was measured, as of the latest step.
    pub fn measures(&self) -> Measures {
        *lock(&self.shared.measures)
    }

    /// Whether requests are computed. It is set before the requests that a
    /// failure ends are told.
    pub fn state(&self) -> State {
        *lock(&self.shared.state)
    }

    /// Ends all requests as cancelled, waits for the thread
    /// and frees the model. The last events can still be drained.
    pub fn close(&mut self) {
        self.shared.inbox.close(Error::Closed);
        if let Some(thread) = self.thread.take() {
            // It catches panics itself; nothing is left to report.
            let _ = thread.join();
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.close();
    }
}

/// Locks, whatever happened to the last one who did: no invariant spans two
/// statements under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
