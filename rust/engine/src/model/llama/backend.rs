//! ggml's backends, and what ggml and llama.cpp have to say.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use libloading::Library;
use llama_cpp_sys_2 as sys;

use crate::Error;
use crate::model::fault::{self, Fault};

/// The ggml that the bindings were made for. The libraries beside the module
/// must be the same: structs are passed by value.
pub const GGML_VERSION: &str = "0.26.0";

/// What is loaded, for the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backends {
    /// ggml's build of the CPU backend that fits this CPU best, e.g. "zen4".
    pub cpu_variant: String,
    /// The devices, e.g. "CPU", "Vulkan0".
    pub devices: Vec<String>,
    /// Files of the folder that could not be used, and why.
    pub failures: Vec<String>,
}

static LOADED: OnceLock<Backends> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

/// What is loaded; `None` before the first engine.
pub fn backends() -> Option<&'static Backends> {
    LOADED.get()
}

/// Checks that the ggml in this process is the one that was compiled against.
pub fn check_version() -> Result<(), Error> {
    // SAFETY: returns a static string.
    let found = unsafe { text(sys::ggml_version()) };
    if found == GGML_VERSION {
        return Ok(());
    }
    Err(Error::Unsupported(format!(
        "the ggml library found is {found}, but {GGML_VERSION} is needed: reinstall the package"
    )))
}

/// The version of the llama.cpp in use.
pub fn llama_version() -> String {
    // SAFETY: both return static strings.
    unsafe { text(sys::llama_version()) }
}

/// Loads the backends in `folder`, once a process: the best variant of the CPU
/// backend, and every other backend there is.
///
/// ggml's own directory loading would do, but says nothing about a backend
/// that fails to load, and also reads an environment variable.
pub(super) fn load(folder: &Path) -> Result<&'static Backends, Error> {
    let _loading = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(loaded) = LOADED.get() {
        return Ok(loaded);
    }
    check_version()?;
    // SAFETY: `log` lives as long as the program and takes no user data.
    unsafe { sys::llama_log_set(Some(log), std::ptr::null_mut()) };

    let failed = |reason: String| Error::ModelLoad(format!("{}: {reason}", folder.display()));
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(|error| failed(error.to_string()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| is_backend(path))
        .collect();
    files.sort();
    let (cpu, others): (Vec<_>, Vec<_>) = files.iter().partition(|path| variant(path).is_some());

    let mut failures = Vec::new();
    // Accelerators first: ggml prefers devices in the order they came.
    for path in others {
        if let Err(reason) = load_file(path) {
            failures.push(reason);
        }
    }
    let best = cpu
        .into_iter()
        .filter_map(|path| match score(path) {
            Ok(0) => None,
            Ok(score) => Some((score, path)),
            Err(error) => {
                failures.push(format!("{}: {error}", path.display()));
                None
            }
        })
        .max_by_key(|(score, _)| *score);
    let Some((_, best)) = best else {
        failures.insert(0, "no CPU backend for this CPU".to_owned());
        return Err(failed(failures.join("; ")));
    };
    load_file(best).map_err(failed)?;

    // SAFETY: indices are below the count, and names are static strings.
    let devices = (0..unsafe { sys::ggml_backend_dev_count() })
        .map(|i| unsafe { text(sys::ggml_backend_dev_name(sys::ggml_backend_dev_get(i))) })
        .collect();
    Ok(LOADED.get_or_init(|| Backends {
        cpu_variant: variant(best).unwrap_or_default().to_owned(),
        devices,
        failures,
    }))
}

/// Puts our kernels behind the CPU backend, once a process; an error says why
/// llama.cpp's own stay alone.
pub(super) fn install_kernels() -> Result<(), String> {
    // Two models that are loaded at once.
    let _loading = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    let faults = Fault::from_env().map_err(|error| error.to_string())?;
    let fault = faults.contains(&Fault::Kernels);
    let reason = format!("{}={}", fault::VARIABLE, Fault::Kernels);
    llm_kernels::ggml::install(fault.then_some(&reason))
}

fn is_backend(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| {
        name.trim_start_matches("lib").starts_with("ggml-")
            && name.ends_with(std::env::consts::DLL_SUFFIX)
    })
}

/// "zen4" of "libggml-cpu-zen4-llm-api.so".
fn variant(path: &Path) -> Option<&str> {
    let name = path.file_stem()?.to_str()?.trim_start_matches("lib");
    let name = name.trim_end_matches("-llm-api");
    match name.strip_prefix("ggml-cpu")? {
        "" => Some("generic"),
        rest => rest.strip_prefix('-'),
    }
}

/// How well a variant of the CPU backend fits this CPU; 0: not at all.
fn score(path: &Path) -> Result<c_int, libloading::Error> {
    // SAFETY: the file is a ggml backend of our own package; loading it runs
    // no code but that of the C++ runtime, and its score function only looks
    // at the CPU.
    unsafe {
        let library = Library::new(path)?;
        let score = library.get::<unsafe extern "C" fn() -> c_int>(b"ggml_backend_score\0")?;
        Ok(score())
    }
}

fn load_file(path: &Path) -> Result<(), String> {
    let name = path_to_c(path).ok_or_else(|| format!("{}: not a path", path.display()))?;
    clear_log();
    // SAFETY: `name` is a C string that outlives the call.
    let registry = unsafe { sys::ggml_backend_load(name.as_ptr()) };
    if registry.is_null() {
        return Err(logged().unwrap_or_else(|| format!("{}: not supported here", path.display())));
    }
    Ok(())
}

/// A function that the CPU backend exports by name; backends are loaded at
/// run time, so it cannot be linked.
pub(super) fn cpu_function(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: backends have been loaded before any model; device, registry and
    // function live as long as the process.
    unsafe {
        let device = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
        if device.is_null() {
            return None;
        }
        let registry = sys::ggml_backend_dev_backend_reg(device);
        let function = sys::ggml_backend_reg_get_proc_address(registry, name.as_ptr());
        (!function.is_null()).then_some(function)
    }
}

thread_local! {
    /// Errors that llama.cpp logged on this thread: the only place where it
    /// says why a call failed.
    static ERRORS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    /// Buffers that weights were put into and their MiB, by its log as well.
    static BUFFERS: RefCell<Vec<(String, f64)>> = const { RefCell::new(Vec::new()) };
}

/// Errors kept for one failing call; more are noise.
const ERRORS_KEPT: usize = 8;

unsafe extern "C" fn log(level: sys::ggml_log_level, message: *const c_char, _: *mut c_void) {
    if ![sys::GGML_LOG_LEVEL_ERROR, sys::GGML_LOG_LEVEL_INFO].contains(&level) {
        return;
    }
    // SAFETY: ggml passes a C string that lives through the call, or null.
    let message = unsafe { text(message) };
    if level == sys::GGML_LOG_LEVEL_INFO {
        if let Some((place, size)) = message.split_once(" model buffer size = ") {
            let name = place.rsplit(' ').next().unwrap_or_default().to_owned();
            let size = size
                .split_whitespace()
                .next()
                .and_then(|size| size.parse().ok());
            let buffer = (name, size.unwrap_or_default());
            let _ = BUFFERS.try_with(|buffers| buffers.borrow_mut().push(buffer));
        }
        return;
    }
    // `try_with`: a thread that is being torn down may still log.
    let _ = ERRORS.try_with(|errors| {
        let mut errors = errors.borrow_mut();
        if errors.len() < ERRORS_KEPT {
            errors.push(message.trim().to_owned());
        }
    });
}

/// Forgets what was logged on this thread; call it before a call that may fail.
pub(super) fn clear_log() {
    ERRORS.with(|errors| errors.borrow_mut().clear());
    BUFFERS.with(|buffers| buffers.borrow_mut().clear());
}

/// The names of the buffers that this thread has loaded weights into since
/// [`clear_log`], and their MiB.
pub(super) fn weight_buffers() -> Vec<(String, f64)> {
    BUFFERS.with(|buffers| std::mem::take(&mut *buffers.borrow_mut()))
}

/// What was logged on this thread since [`clear_log`], the names of llama.cpp's
/// functions taken off.
pub(super) fn logged() -> Option<String> {
    let lines = ERRORS.with(|errors| std::mem::take(&mut *errors.borrow_mut()));
    let mut reasons: Vec<&str> = Vec::new();
    for line in &lines {
        let reason = match line.split_once(": ") {
            Some((function, rest)) if !function.contains(' ') => rest,
            _ => line,
        };
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// A C string of llama.cpp as text; empty for null.
///
/// # Safety
/// `pointer` is null or a C string that lives through the call.
pub(super) unsafe fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(pointer) };
    bytes.to_string_lossy().into_owned()
}

/// A path as llama.cpp takes it: the bytes of the file system on Unix, UTF-8
/// on Windows.
pub(super) fn path_to_c(path: &Path) -> Option<CString> {
    #[cfg(unix)]
    let bytes = std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str());
    #[cfg(not(unix))]
    let bytes = path.to_str()?.as_bytes();
    CString::new(bytes).ok()
}
