//! `llm_api._native`: llm-engine for Python. Functions convert, release the
//! GIL and convert; there is no logic here.

mod convert;
mod engine;
mod errors;

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

use llm_engine::model::llama;
use llm_engine::stop::StopRules;

/// Raises StopPatternError unless the stop rules compile.
#[pyfunction]
fn check_stop(py: Python<'_>, patterns: Vec<String>, literals: Vec<String>) -> PyResult<()> {
    py.detach(|| StopRules::compile(&patterns, &literals))
        .map(drop)
        .map_err(errors::to_python)
}

/// From now on a crash of llama.cpp on a model file ends the process with a
/// reason and exit status 1: for programs, not for libraries.
#[pyfunction]
fn end_on_crash() {
    llama::end_on_crash();
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    llama::check_version().map_err(|error| PyImportError::new_err(error.to_string()))?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("ggml_version", llama::GGML_VERSION)?;
    module.add("llama_version", llama::llama_version())?;
    module.add_class::<engine::Engine>()?;
    module.add_class::<engine::Loading>()?;
    module.add_class::<engine::Prepared>()?;
    module.add_function(wrap_pyfunction!(check_stop, module)?)?;
    module.add_function(wrap_pyfunction!(end_on_crash, module)?)
}
