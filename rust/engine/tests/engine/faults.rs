//! A decode that fails, a model that panics, a loader that cannot.

use std::cell::Cell;
use std::sync::{Arc, Barrier};

use llm_engine::model::fake::FakeLoader;
use llm_engine::model::fault::{Fault, Faulty};
use llm_engine::model::{DecodeError, Loader, Model, ModelInfo, Row, SeqId, Vocab};
use llm_engine::{Engine, Error, FinishReason, State};

use crate::harness::{Bench, config, expect_panics, limited, request, watched};

#[test]
fn a_failed_decode_ends_those_in_the_batch_and_no_others() {
    watched(|| {
        for nth in 1..12 {
            let config = config(256, 512, 2, 2);
            let mut bench = Bench::faulty(config, "batch=64;hash", Some(Fault::Decode(nth)));
            bench.control.record();
            bench.control.hold();
            let ids: Vec<_> = (0..4)
                .map(|n| bench.submit(limited(&"p".repeat(90 + n), 9)))
                .collect();
            bench.control.open();
            let replies = bench.replies(&ids);
            let failed: Vec<bool> = replies.iter().map(|reply| reply.text.len() < 9).collect();
            for (reply, &failed) in replies.iter().zip(&failed) {
                let is_error = matches!(&reply.reason, FinishReason::Error(Error::Decode(_)));
                assert_eq!(is_error, failed, "{:?}", reply.reason);
            }
            let hit = failed.iter().filter(|&&failed| failed).count();
            assert!(hit == 1 || hit == 2, "decode {nth} hit {hit}");
            assert_eq!(bench.engine.stats().failed, hit as u64);
            bench.assert_idle();
            assert_eq!(
                bench.alone(limited("after", 5)).reason,
                FinishReason::Length
            );
        }
    });
}

#[test]
fn a_panic_ends_all_and_the_engine_goes_on() {
    expect_panics();
    watched(|| {
        for nth in 1..12 {
            let config = config(256, 512, 2, 2);
            let mut bench = Bench::faulty(config, "batch=64;hash", Some(Fault::Panic(nth)));
            bench.control.hold();
            // All are in the line when it happens, or were done before.
            let ids: Vec<_> = (0..4)
                .map(|n| bench.submit(limited(&"p".repeat(90 + n), 9)))
                .collect();
            bench.control.open();
            let replies = bench.replies(&ids);
            let panicked = |reply: &&crate::harness::Reply| matches!(&reply.reason, FinishReason::Error(Error::Panicked(why)) if why.contains("panic:"));
            assert!(replies.iter().any(|reply| panicked(&reply)));
            for reply in &replies {
                assert!(panicked(&reply) || reply.text.len() == 9);
            }
            let stats = bench.engine.stats();
            assert_eq!(stats.rebuilds, 1);
            assert_eq!(stats.completed + stats.failed, 4);
            assert_eq!(bench.alone(limited("after", 5)).text.len(), 5);
            bench.assert_idle();
        }
    });
}

/// Panics in some calls of the model, whichever they are. Calls are counted
/// from 1, over all contexts.
struct Mine<F> {
    loader: FakeLoader,
    calls: u64,
    fires: F,
}

impl<F: Fn(u64) -> bool + Send + 'static> Loader for Mine<F> {
    fn load(&mut self) -> Result<Arc<dyn Vocab>, Error> {
        self.loader.load()
    }

    fn with_model(&mut self, serve: &mut dyn FnMut(&mut dyn Model)) -> Result<(), Error> {
        let Self {
            loader,
            calls,
            fires,
        } = self;
        let calls = Cell::from_mut(calls);
        loader.with_model(&mut |model| {
            serve(&mut MinedModel {
                model,
                calls,
                fires,
            })
        })
    }
}

struct MinedModel<'a> {
    model: &'a mut dyn Model,
    calls: &'a Cell<u64>,
    fires: &'a dyn Fn(u64) -> bool,
}

impl MinedModel<'_> {
    fn step_on(&self) {
        self.calls.set(self.calls.get() + 1);
        assert!(!(self.fires)(self.calls.get()), "a mine");
    }
}

impl Model for MinedModel<'_> {
    fn info(&self) -> &ModelInfo {
        self.model.info()
    }
    fn decode(&mut self, rows: &[Row]) -> Result<(), DecodeError> {
        self.step_on();
        self.model.decode(rows)
    }
    fn logits(&self, row: usize) -> &[f32] {
        self.step_on();
        self.model.logits(row)
    }
    fn remove(&mut self, sequence: SeqId, from: i32, to: i32) -> bool {
        self.step_on();
        self.model.remove(sequence, from, to)
    }
    fn shift(&mut self, sequence: SeqId, from: i32, to: i32, delta: i32) {
        self.step_on();
        self.model.shift(sequence, from, to, delta);
    }
    fn copy(&mut self, from: SeqId, to: SeqId, begin: i32, end: i32) {
        self.step_on();
        self.model.copy(from, to, begin, end);
    }
    fn intact(&self, sequence: SeqId, len: i32) -> bool {
        self.step_on();
        self.model.intact(sequence, len)
    }
}

fn mined(fires: impl Fn(u64) -> bool + Send + 'static) -> Bench {
    let config = config(40, 70, 3, 3);
    let loader = FakeLoader::new("batch=16;hash".parse().unwrap(), 70, 3);
    let control = loader.control();
    let mine = Mine {
        loader,
        calls: 0,
        fires,
    };
    Bench::of(
        Engine::start(config, mine).expect("the engine starts"),
        control,
    )
}

#[test]
fn a_panic_in_any_call_leaves_nobody_without_an_end() {
    expect_panics();
    watched(|| {
        for at in 1..150 {
            let mut bench = mined(move |call| call == at);
            // With pauses, shifts and prompt pieces, so that all calls occur.
            let ids: Vec<_> = (0..6)
                .map(|n| {
                    let mut request = limited(&"p".repeat(5 + 3 * n), 30);
                    request.n_keep = 1;
                    bench.submit(request)
                })
                .collect();
            for reply in bench.replies(&ids) {
                match reply.reason {
                    FinishReason::Length => assert_eq!(reply.text.len(), 30),
                    FinishReason::Error(Error::Panicked(why)) => assert!(why.contains("a mine")),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(bench.engine.stats().rebuilds, 1);
            assert_eq!(bench.alone(limited("after", 5)).text.len(), 5);
            bench.assert_idle();
        }
    });
}

#[test]
fn a_model_that_always_panics_is_given_up() {
    expect_panics();
    watched(|| {
        let mut bench = mined(|_| true);
        let mut ends = 0;
        let reason = loop {
            match bench.engine.submit(request("x")) {
                Ok(id) => {
                    let reason = bench.reply(id).reason;
                    assert!(matches!(reason, FinishReason::Error(Error::Panicked(_))));
                    ends += 1;
                }
                Err(reason) => break reason,
            }
        };
        assert_eq!(ends, 4, "one context, made again three times");
        assert!(matches!(reason, Error::Panicked(why) if why.contains("a mine")));
        assert_eq!(bench.engine.state(), State::Failed);
        bench.engine.close();
        assert_eq!(bench.engine.stats().rebuilds, 3);
    });
}

#[test]
fn a_model_that_panics_now_and_then_is_not() {
    expect_panics();
    watched(|| {
        let mut bench = mined(|call| call % 20 == 0);
        let replies: Vec<_> = (0..30).map(|_| bench.alone(limited("x", 7))).collect();
        assert!(
            replies
                .iter()
                .any(|reply| reply.reason == FinishReason::Length)
        );
        assert!(bench.engine.stats().rebuilds > 10);
    });
}

/// Holds every context after the first up, until it is told to go on.
struct Gated {
    loader: FakeLoader,
    contexts: usize,
    gate: Arc<Barrier>,
}

impl Loader for Gated {
    fn load(&mut self) -> Result<Arc<dyn Vocab>, Error> {
        self.loader.load()
    }

    fn with_model(&mut self, serve: &mut dyn FnMut(&mut dyn Model)) -> Result<(), Error> {
        self.contexts += 1;
        if self.contexts > 1 {
            self.gate.wait();
        }
        self.loader.with_model(serve)
    }
}

fn gated(faults: &[Fault]) -> (Bench, Arc<Barrier>) {
    let loader = FakeLoader::new("batch=64;hash".parse().unwrap(), 512, 2);
    let control = loader.control();
    let gate = Arc::new(Barrier::new(2));
    let gated = Gated {
        loader,
        contexts: 0,
        gate: Arc::clone(&gate),
    };
    let faulty = Faulty::new(gated, faults.to_vec());
    let engine = Engine::start(config(256, 512, 2, 2), faulty).expect("the engine starts");
    (Bench::of(engine, control), gate)
}

#[test]
fn who_comes_during_a_rebuild_waits_for_it() {
    expect_panics();
    watched(|| {
        let (mut bench, gate) = gated(&[Fault::Panic(3)]);
        assert_eq!(bench.engine.state(), State::Ready);
        let broken = bench.alone(limited("before", 9));
        assert!(matches!(
            broken.reason,
            FinishReason::Error(Error::Panicked(_))
        ));
        assert_eq!(bench.engine.state(), State::Rebuilding);
        let ids: Vec<_> = (0..4).map(|_| bench.submit(limited("during", 9))).collect();
        assert_eq!(
            bench.refused(request("more")),
            Error::QueueFull { queue: 2 }
        );
        bench.engine.cancel(ids[1]);
        gate.wait();
        let reasons: Vec<_> = bench.replies(&ids).into_iter().map(|r| r.reason).collect();
        let mut wanted = vec![FinishReason::Length; 4];
        wanted[1] = FinishReason::Cancelled;
        assert_eq!(reasons, wanted);
        assert_eq!(bench.engine.state(), State::Ready);
        bench.assert_idle();
    });
}

#[test]
fn who_waits_for_a_rebuild_that_fails_for_good_is_told() {
    expect_panics();
    watched(|| {
        let (mut bench, gate) = gated(&[
            Fault::Panic(3),
            Fault::Context(3),
            Fault::Context(4),
            Fault::Panic(4),
        ]);
        bench.alone(limited("before", 9));
        let waiting = bench.submit(limited("during", 9));
        gate.wait(); // the second context panics at once, and the next two cannot be made
        let reply = bench.reply(waiting);
        assert!(matches!(reply.reason, FinishReason::Error(_)), "{reply:?}");
        while bench.engine.state() != State::Failed {
            std::thread::yield_now();
        }
        assert!(
            matches!(bench.refused(request("x")), Error::ModelLoad(why) if why.contains("context:4"))
        );
        bench.engine.close();
    });
}

/// Fails before there is a model.
enum Broken {
    NoFile,
    PanicInLoad,
    NoContext,
}

impl Loader for Broken {
    fn load(&mut self) -> Result<Arc<dyn Vocab>, Error> {
        match self {
            Self::NoFile => Err(Error::ModelLoad("no such file".into())),
            Self::PanicInLoad => panic!("a bad file"),
            Self::NoContext => Ok(Arc::new(llm_engine::model::fake::FakeVocab)),
        }
    }

    fn with_model(&mut self, _: &mut dyn FnMut(&mut dyn Model)) -> Result<(), Error> {
        Err(Error::ModelLoad("no memory".into()))
    }
}

#[test]
fn a_model_that_does_not_load_is_an_error() {
    expect_panics();
    watched(|| {
        let start = |loader| Engine::start(config(64, 64, 1, 0), loader).err();
        assert_eq!(
            start(Broken::NoFile),
            Some(Error::ModelLoad("no such file".into()))
        );
        assert_eq!(
            start(Broken::PanicInLoad),
            Some(Error::Panicked("a bad file".into()))
        );
        assert_eq!(
            start(Broken::NoContext),
            Some(Error::ModelLoad("no memory".into()))
        );
    });
}

#[test]
fn faults_are_written_as_documented() {
    assert_eq!("decode:7".parse(), Ok(Fault::Decode(7)));
    assert_eq!("panic:1".parse(), Ok(Fault::Panic(1)));
    assert_eq!("context:2".parse(), Ok(Fault::Context(2)));
    assert_eq!("kernels".parse(), Ok(Fault::Kernels));
    for fault in [
        Fault::Decode(1),
        Fault::Panic(12),
        Fault::Context(3),
        Fault::Kernels,
    ] {
        assert_eq!(fault.to_string().parse(), Ok(fault));
    }
    for wrong in [
        "",
        "decode",
        "decode:",
        "decode:0",
        "decode:-1",
        "panic:x",
        "crash:1",
    ] {
        assert!(wrong.parse::<Fault>().is_err(), "{wrong}");
    }
}
