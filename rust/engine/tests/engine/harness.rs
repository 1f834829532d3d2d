//! What all engine tests need: an engine over the scripted model, a reader of
//! its events, and a watchdog.

use std::collections::HashMap;
use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;

use llm_engine::model::Span;
use llm_engine::model::fake::{Control, FakeLoader};
use llm_engine::model::fault::{Fault, Faulty};
use llm_engine::sampler::SamplingParams;
use llm_engine::stop::StopRules;
use llm_engine::{
    Config, Engine, Error, Event, EventKind, FinishReason, Request, RequestId, Usage,
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Runs a test, and fails it if it hangs.
pub fn watched(test: impl FnOnce() + Send + 'static) {
    let (sender, done) = channel();
    let thread = thread::spawn(move || {
        test();
        let _ = sender.send(());
    });
    if done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
        panic!("the test hangs");
    }
    if let Err(panic) = thread.join() {
        resume_unwind(panic);
    }
}

/// Keeps the panics that tests order out of their output.
pub fn expect_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if thread::current().name() != Some("llm-engine") {
                report(info);
            }
        }));
    });
}

pub fn config(context: u32, pool: u32, parallel: u32, queue: u32) -> Config {
    Config {
        context,
        pool,
        parallel,
        queue,
        prompt_lookup: true,
    }
}

/// A greedy request without limits of its own.
pub fn request(prompt: &str) -> Request {
    let span = Span {
        text: prompt.into(),
        is_data: true,
    };
    let vocab: &dyn llm_engine::model::Vocab = &llm_engine::model::fake::FakeVocab;
    Request {
        prompt: vocab.tokenize(&[span]).expect("any bytes are tokens"),
        sampling: SamplingParams::greedy(),
        stop: StopRules::none(),
        max_tokens: None,
        max_time: None,
        ignore_eos: false,
        n_keep: 0,
    }
}

/// The same with a limit on its reply.
pub fn limited(prompt: &str, max_tokens: u32) -> Request {
    Request {
        max_tokens: Some(max_tokens),
        ..request(prompt)
    }
}

/// A whole reply.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub text: String,
    pub reason: FinishReason,
    pub usage: Usage,
}

pub struct Bench {
    pub engine: Engine,
    pub control: Arc<Control>,
    texts: HashMap<RequestId, String>,
    ended: HashMap<RequestId, Reply>,
}

impl Bench {
    pub fn new(config: Config, model: &str) -> Self {
        Self::faulty(config, model, None)
    }

    pub fn faulty(config: Config, model: &str, fault: Option<Fault>) -> Self {
        let spec = model.parse().expect("a scripted model");
        let loader = FakeLoader::new(spec, config.pool as usize, config.parallel as usize);
        let control = loader.control();
        let engine = Engine::start(config, Faulty::new(loader, fault)).expect("the engine starts");
        Self::of(engine, control)
    }

    pub fn of(engine: Engine, control: Arc<Control>) -> Self {
        Self {
            engine,
            control,
            texts: HashMap::new(),
            ended: HashMap::new(),
        }
    }

    pub fn submit(&self, request: Request) -> RequestId {
        self.engine
            .submit(request)
            .expect("the request is accepted")
    }

    /// Submits requests that are all in the line before one is computed: the
    /// model is held, until its `control` opens it.
    pub fn submit_held(&self, requests: &[Request]) -> Vec<RequestId> {
        self.control.hold();
        let requests = requests.iter().cloned();
        requests.map(|request| self.submit(request)).collect()
    }

    pub fn refused(&self, request: Request) -> Error {
        self.engine
            .submit(request)
            .expect_err("the request is refused")
    }

    /// Waits for the end of a request.
    pub fn reply(&mut self, id: RequestId) -> Reply {
        while !self.ended.contains_key(&id) {
            assert!(self.engine.wait(PATIENCE), "no event for too long");
            self.drain();
        }
        self.ended[&id].clone()
    }

    pub fn replies(&mut self, ids: &[RequestId]) -> Vec<Reply> {
        ids.iter().map(|&id| self.reply(id)).collect()
    }

    /// The reply of an engine that has nothing else to do.
    pub fn alone(&mut self, request: Request) -> Reply {
        let id = self.submit(request);
        self.reply(id)
    }

    /// Takes the events there are; checks what holds for any batch of them.
    pub fn drain(&mut self) -> usize {
        let mut events = Vec::new();
        self.engine.drain(&mut events);
        let count = events.len();
        let mut seen: HashMap<RequestId, usize> = HashMap::new();
        for Event { id, kind } in events {
            assert!(
                !self.ended.contains_key(&id),
                "something after the end of {id}"
            );
            match kind {
                EventKind::Delta(text) => {
                    assert!(!text.is_empty());
                    *seen.entry(id).or_default() += 1;
                    self.texts.entry(id).or_default().push_str(&text);
                }
                EventKind::End { reason, usage } => {
                    let text = self.texts.remove(&id).unwrap_or_default();
                    self.ended.insert(
                        id,
                        Reply {
                            text,
                            reason,
                            usage,
                        },
                    );
                }
            }
        }
        assert!(
            seen.values().all(|&deltas| deltas == 1),
            "deltas that should be one"
        );
        count
    }

    /// Everything is given back, but for what is kept for others.
    pub fn assert_idle(&self) {
        let stats = self.engine.stats();
        assert_eq!((stats.waiting, stats.running, stats.paused), (0, 0, 0));
        assert_eq!(stats.cells_used, 0);
        assert_eq!(stats.cells_cached, self.control.used_cells());
    }
}

impl Drop for Bench {
    /// The engine waits for its model when it is dropped.
    fn drop(&mut self) {
        self.control.open();
    }
}
