//! The one conversion of engine errors to the exceptions of `llm_api.errors`.

use llm_engine::Error;
use pyo3::PyErr;
use pyo3::import_exception;

import_exception!(llm_api.errors, EngineClosedError);
import_exception!(llm_api.errors, GenerationError);
import_exception!(llm_api.errors, ModelLoadError);
import_exception!(llm_api.errors, PromptEmptyError);
import_exception!(llm_api.errors, PromptTooLongError);
import_exception!(llm_api.errors, QueueFullError);
import_exception!(llm_api.errors, StopPatternError);
import_exception!(llm_api.errors, UnsupportedError);

pub fn to_python(error: Error) -> PyErr {
    let message = error.to_string();
    match error {
        Error::ModelLoad(_) => ModelLoadError::new_err(message),
        Error::Unsupported(_) => UnsupportedError::new_err(message),
        Error::PromptTooLong { tokens, context } => PromptTooLongError::new_err((tokens, context)),
        Error::PromptEmpty => PromptEmptyError::new_err(message),
        Error::StopPattern { pattern, reason } => StopPatternError::new_err((pattern, reason)),
        Error::QueueFull { queue } => QueueFullError::new_err((queue,)),
        Error::Decode(_) | Error::Panicked(_) => GenerationError::new_err(message),
        Error::Closed => EngineClosedError::new_err(message),
    }
}
