//! The class `Engine`.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use llm_engine::model::fake::FakeLoader;
use llm_engine::model::fault::{Fault, Faulty};
use llm_engine::model::llama::{LlamaLoader, backends};
use llm_engine::model::{Kernels, Loader, Reuse, loading};
use llm_engine::{Config, Error, Measures, Request, State, Stats};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict};

use crate::convert::{EngineConfig, GenerationOptions, PyEvent, event, histogram, spans};
use crate::errors::to_python;

/// A valid request, to be submitted once.
#[pyclass(frozen, module = "llm_api._native")]
pub struct Prepared(Mutex<Option<Request>>);

/// A load in progress, for those who wait for it.
#[pyclass(frozen, module = "llm_api._native")]
#[derive(Default)]
pub struct Loading(Arc<loading::Loading>);

#[pymethods]
impl Loading {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    #[getter]
    fn progress(&self) -> f32 {
        self.0.progress()
    }

    fn cancel(&self) {
        self.0.cancel();
    }
}

/// An engine and its thread.
#[pyclass(frozen, module = "llm_api._native")]
pub struct Engine {
    /// `None` once closed: the vocabulary, and with it the weights, go too.
    engine: RwLock<Option<llm_engine::Engine>>,
    bell: i32,
    process: u32,
}

impl Engine {
    fn new(engine: llm_engine::Engine) -> Self {
        Self {
            bell: engine.bell(),
            engine: RwLock::new(Some(engine)),
            process: std::process::id(),
        }
    }

    /// Calls `f` without the GIL.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&llm_engine::Engine) -> Result<T, Error> + Send,
    ) -> PyResult<T> {
        py.detach(|| {
            let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner);
            match &*engine {
                // The thread stays behind when a process forks.
                Some(engine) if self.process == std::process::id() => f(engine),
                _ => Err(Error::Closed),
            }
        })
        .map_err(to_python)
    }

    fn take(&self) -> Option<llm_engine::Engine> {
        self.engine
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// Starts an engine, with the faults that the environment orders.
fn start(sizes: Config, loader: impl Loader) -> Result<llm_engine::Engine, Error> {
    llm_engine::Engine::start(sizes, Faulty::new(loader, Fault::from_env()?))
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            // There is no thread to wait for.
            std::mem::forget(self.take());
        }
    }
}

#[pymethods]
impl Engine {
    #[new]
    fn load(py: Python<'_>, config: EngineConfig, loading: &Loading) -> PyResult<Self> {
        py.detach(|| {
            let sizes = config.engine();
            let loader = LlamaLoader::watched(config.model()?, Arc::clone(&loading.0));
            start(sizes, loader)
        })
        .map(Self::new)
        .map_err(to_python)
    }

    /// An engine with a scripted model, for tests.
    #[staticmethod]
    fn scripted(
        py: Python<'_>,
        spec: &str,
        context: u32,
        pool: u32,
        parallel: u32,
        queue: u32,
    ) -> PyResult<Self> {
        let sizes = Config {
            context,
            pool,
            parallel,
            queue,
            prompt_lookup: true,
        };
        py.detach(|| {
            let loader = FakeLoader::new(spec.parse()?, pool as usize, parallel as usize);
            start(sizes, loader)
        })
        .map(Self::new)
        .map_err(to_python)
    }

    fn tokenize(&self, py: Python<'_>, prompt: Vec<(String, bool)>) -> PyResult<Vec<i32>> {
        self.with(py, |engine| engine.vocab().tokenize(&spans(prompt)))
    }

    /// The slow part of a request, for any thread: tokens and stop rules.
    fn prepare(
        &self,
        py: Python<'_>,
        prompt: Vec<(String, bool)>,
        options: GenerationOptions,
    ) -> PyResult<Prepared> {
        let vocab = self.with(py, |engine| Ok(engine.vocab()))?;
        py.detach(|| options.request(vocab.tokenize(&spans(prompt))?))
            .map(|request| Prepared(Mutex::new(Some(request))))
            .map_err(to_python)
    }

    fn submit(&self, py: Python<'_>, request: &Prepared) -> PyResult<u64> {
        let request = request
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let request = request.ok_or_else(|| PyValueError::new_err("submitted already"))?;
        self.with(py, |engine| engine.submit(request))
    }

    fn cancel(&self, py: Python<'_>, id: u64) -> PyResult<()> {
        self.with(py, |engine| {
            engine.cancel(id);
            Ok(())
        })
    }

    fn drain(&self, py: Python<'_>) -> PyResult<Vec<PyEvent>> {
        self.with(py, |engine| {
            let mut events = Vec::new();
            engine.drain(&mut events);
            Ok(events.into_iter().map(event).collect())
        })
    }

    #[getter]
    fn bell(&self) -> i32 {
        self.bell
    }

    #[getter]
    fn state(&self, py: Python<'_>) -> PyResult<&'static str> {
        let state = self.with(py, |engine| Ok(engine.state()))?;
        Ok(match state {
            State::Ready => "ready",
            State::Rebuilding => "rebuilding",
            State::Failed => "failed",
        })
    }

    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let Stats {
            waiting,
            running,
            paused,
            cells_used,
            cells_cached,
            cells_total,
            decodes,
            computed_tokens,
            sampled_tokens,
            drafted_tokens,
            accepted_tokens,
            prefix_hits,
            prefix_tokens,
            cells_evicted,
            pauses,
            shifts,
            rebuilds,
            completed,
            cancelled,
            failed,
        } = self.with(py, |engine| Ok(engine.stats()))?;
        [
            ("waiting", waiting as u64),
            ("running", running as u64),
            ("paused", paused as u64),
            ("cells_used", cells_used as u64),
            ("cells_cached", cells_cached as u64),
            ("cells_total", cells_total as u64),
            ("decodes", decodes),
            ("computed_tokens", computed_tokens),
            ("sampled_tokens", sampled_tokens),
            ("drafted_tokens", drafted_tokens),
            ("accepted_tokens", accepted_tokens),
            ("prefix_hits", prefix_hits),
            ("prefix_tokens", prefix_tokens),
            ("cells_evicted", cells_evicted),
            ("pauses", pauses),
            ("shifts", shifts),
            ("rebuilds", rebuilds),
            ("completed", completed),
            ("cancelled", cancelled),
            ("failed", failed),
        ]
        .into_py_dict(py)
    }

    fn measures<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let Measures {
            busy,
            prompt_tokens,
            prompt_time,
            reply_time,
            first_token,
            between_tokens,
        } = self.with(py, |engine| Ok(engine.measures()))?;
        let dict = PyDict::new(py);
        dict.set_item("busy", busy)?;
        dict.set_item("prompt_tokens", prompt_tokens)?;
        dict.set_item("prompt_seconds", prompt_time.as_secs_f64())?;
        dict.set_item("reply_seconds", reply_time.as_secs_f64())?;
        dict.set_item("first_token", histogram(&first_token))?;
        dict.set_item("between_tokens", histogram(&between_tokens))?;
        Ok(dict)
    }

    #[getter]
    fn info<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let info = self.with(py, |engine| Ok(engine.info().clone()))?;
        let dict = PyDict::new(py);
        dict.set_item("description", info.description)?;
        dict.set_item("cells", info.cells)?;
        dict.set_item("sequences", info.sequences)?;
        dict.set_item("batch", info.batch)?;
        dict.set_item("trained_context", info.trained_context)?;
        dict.set_item("can_shift", info.can_shift)?;
        dict.set_item("can_truncate", info.reuse == Reuse::Any)?;
        let (kernels, failure) = match info.kernels {
            Kernels::Off => ("off".into(), None),
            Kernels::On(report) => (report, None),
            Kernels::Failed(reason) => ("not used".into(), Some(reason)),
        };
        dict.set_item("kernels", kernels)?;
        dict.set_item("kernels_failure", failure)?;
        let backends = backends().cloned().unwrap_or_default();
        dict.set_item("cpu_variant", backends.cpu_variant)?;
        dict.set_item("devices", backends.devices)?;
        dict.set_item("backend_failures", backends.failures)?;
        Ok(dict)
    }

    #[getter]
    fn chat_template(&self, py: Python<'_>) -> PyResult<Option<String>> {
        self.with(py, |engine| {
            Ok(engine.vocab().chat_template().map(str::to_owned))
        })
    }

    #[getter]
    fn bos_text(&self, py: Python<'_>) -> PyResult<String> {
        self.with(py, |engine| Ok(engine.vocab().bos_text().to_owned()))
    }

    #[getter]
    fn eos_text(&self, py: Python<'_>) -> PyResult<String> {
        self.with(py, |engine| Ok(engine.vocab().eos_text().to_owned()))
    }

    fn close(&self, py: Python<'_>) -> Vec<PyEvent> {
        if self.process != std::process::id() {
            return Vec::new();
        }
        py.detach(|| {
            let Some(mut engine) = self.take() else {
                return Vec::new();
            };
            let mut events = Vec::new();
            engine.close();
            engine.drain(&mut events);
            events.into_iter().map(event).collect()
        })
    }
}
