//! The engine thread from its start to its end, and what a panic on it means.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use super::worker::Worker;
use super::{Config, Shared, State, lock};
use crate::Error;
use crate::lookup::Terms;
use crate::model::{Loader, Model, ModelInfo, Vocab};
use crate::request::FinishReason;
use crate::scheduler::Limits;

/// Prompt tokens a step takes at most while replies are streaming.
const PROMPT_BESIDE_STREAMS: usize = 128;

/// Contexts made again in a row, without a decode that succeeds in between,
/// before the engine gives up.
const MAX_REBUILDS: u32 = 3;

/// What the one who started the thread waits for.
pub(super) type Loaded = Result<(Arc<dyn Vocab>, ModelInfo), Error>;

/// Loads the model and serves it until the inbox is closed. A panic ends the
/// requests that are held and costs the context; the engine goes on in a new
/// one, with the weights that are loaded.
pub(super) fn run(
    config: Config,
    mut loader: impl Loader,
    shared: Arc<Shared>,
    ready: SyncSender<Loaded>,
) {
    let vocab = match contain(|| loader.load()) {
        Ok(vocab) => vocab,
        Err(error) => return report(&ready, Err(error)),
    };
    let mut worker = None;
    let mut first = |model: &dyn Model| {
        let limits = limits(&config, model.info())?;
        report(&ready, Ok((Arc::clone(&vocab), model.info().clone())));
        Ok(Worker::new(Arc::clone(&shared), Arc::clone(&vocab), limits))
    };
    let mut rebuilds = 0;
    loop {
        let decodes = worker.as_ref().map_or(0, Worker::decodes);
        let outcome = contain(|| {
            let mut served = Ok(());
            loader.with_model(&mut |model| {
                *lock(&shared.state) = State::Ready;
                served = serve(&mut worker, &mut first, model);
            })?;
            served
        });
        let Some(worker) = &mut worker else {
            return report(&ready, Err(outcome.err().unwrap_or(Error::Closed)));
        };
        let Err(error) = outcome else {
            return worker.shut_down(&FinishReason::Cancelled);
        };
        let reason = FinishReason::Error(error.clone());
        // A context that worked for a while is no sign of a hopeless model.
        if worker.decodes() > decodes {
            rebuilds = 0;
        }
        if rebuilds == MAX_REBUILDS {
            shared.inbox.close(error);
            *lock(&shared.state) = State::Failed;
            return worker.shut_down(&reason);
        }
        rebuilds += 1;
        *lock(&shared.state) = State::Rebuilding;
        worker.start_over(&reason);
    }
}

/// Serves the model of a new context; the first one makes the worker.
fn serve(
    worker: &mut Option<Worker>,
    first: &mut impl FnMut(&dyn Model) -> Result<Worker, Error>,
    model: &mut dyn Model,
) -> Result<(), Error> {
    let worker = match worker {
        Some(worker) => worker,
        None => worker.insert(first(model)?),
    };
    worker.serve(model);
    Ok(())
}

/// What the scheduler may hand out, if the sizes fit together.
fn limits(config: &Config, info: &ModelInfo) -> Result<Limits, Error> {
    let limits = Limits {
        sequences: config.parallel as usize,
        // Those that the model is not asked to run are as good.
        spare_sequences: (info.sequences + info.spare_sequences)
            .saturating_sub(config.parallel as usize),
        reuse: info.reuse,
        cells: config.pool as usize,
        block: info.block,
        batch: info.batch,
        prompt_beside_streams: PROMPT_BESIDE_STREAMS,
        drafts: if config.prompt_lookup {
            info.drafts
        } else {
            Terms::NONE
        },
    };
    let problem = if config.context < 2 {
        "the context must have room for at least 2 tokens".into()
    } else if config.pool < config.context {
        format!(
            "the pool of {} cells is smaller than a context of {}",
            config.pool, config.context
        )
    } else if info.cells < limits.cells {
        format!("the model has {} cells, not {}", info.cells, limits.cells)
    } else if !(1..=info.sequences.min(info.batch)).contains(&limits.sequences) {
        format!("the model cannot run {} requests at once", limits.sequences)
    } else {
        return Ok(limits);
    };
    Err(Error::Unsupported(problem))
}

/// Runs `work`; a panic becomes an error.
fn contain<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // What a panic leaves half done is thrown away: the context and the
    // scheduler are made anew, and requests are ended whatever their state.
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(Error::Panicked(message(&*panic))))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

fn report(ready: &SyncSender<Loaded>, loaded: Loaded) {
    // Nobody listens only if the caller's thread is gone, and then the engine
    // is closed as well.
    let _ = ready.send(loaded);
}
