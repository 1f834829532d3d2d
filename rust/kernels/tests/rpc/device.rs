//! A device beside the CPU: ggml's RPC backend, compiled from llama.cpp's
//! source, and its server in another process, which computes with llama.cpp's
//! own kernels.

use std::ffi::{CStr, CString, c_char, c_void};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use llama_cpp_sys_2 as sys;

use crate::llama::load_backends;

/// What the server reads: where to listen, on which module.
const ENDPOINT: &str = "LLM_KERNELS_TEST_ENDPOINT";
const MODULE: &str = "LLM_KERNELS_TEST_MODULE";

const THREADS: usize = 2;

/// Makes a device more like a GPU, with memory of the host or without.
type StandIn = unsafe extern "C" fn(sys::ggml_backend_dev_t, bool);

/// The device; one test at a time has it.
pub struct Device {
    device: sys::ggml_backend_dev_t,
    stand_in: StandIn,
    /// The server ends with the pipe to it, however this process ends.
    _server: Child,
}

unsafe impl Send for Device {}

impl Device {
    /// `None`, with the reason printed, if it cannot be had here.
    pub fn get() -> Option<MutexGuard<'static, Device>> {
        static DEVICE: OnceLock<Option<Mutex<Device>>> = OnceLock::new();
        let device = DEVICE.get_or_init(|| match compile() {
            Ok(module) => Some(Mutex::new(Device::start(&module))),
            Err(reason) => {
                eprintln!("not run: no RPC backend: {reason}");
                None
            }
        });
        let device = device.as_ref()?;
        Some(device.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn start(path: &Path) -> Device {
        crate::llama::start();
        // Nobody else gets a port that was just given back.
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let mut server = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "device::server", "--ignored", "--nocapture"])
            .env(ENDPOINT, address.to_string())
            .env(MODULE, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let begin = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert_eq!(server.try_wait().unwrap(), None, "the server has ended");
            assert!(begin.elapsed() < Duration::from_secs(30), "no server");
            std::thread::sleep(Duration::from_millis(10));
        }
        type Add = unsafe extern "C" fn(*const c_char) -> sys::ggml_backend_reg_t;
        let endpoint = CString::new(address.to_string()).unwrap();
        unsafe {
            let add = function(path, c"ggml_backend_rpc_add_server");
            let registry = std::mem::transmute::<*mut c_void, Add>(add)(endpoint.as_ptr());
            let stand_in = function(path, c"stand_in");
            let stand_in = std::mem::transmute::<*mut c_void, StandIn>(stand_in);
            let device = sys::ggml_backend_reg_dev_get(registry, 0);
            stand_in(device, false);
            Device {
                device,
                stand_in,
                _server: server,
            }
        }
    }

    /// As llama.cpp wants a list of devices.
    pub fn list(&self) -> [sys::ggml_backend_dev_t; 2] {
        [self.device, std::ptr::null_mut()]
    }

    /// Runs `test` with a device that reaches memory of the host.
    pub fn with_host_memory(&self, test: impl FnOnce()) {
        unsafe { (self.stand_in)(self.device, true) };
        test();
        unsafe { (self.stand_in)(self.device, false) };
    }
}

/// Compiles the backend into a module of this process's ggml.
fn compile() -> Result<PathBuf, String> {
    let source = llama_source()?;
    let rpc = source.join("ggml/src/ggml-rpc");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = target.join("libggml-rpc.so");
    let new = target.join(format!("libggml-rpc-{}.so", std::process::id()));
    let output = Command::new("c++")
        .args(["-std=gnu++17", "-O1", "-w", "-fPIC", "-shared"])
        .args(["-D_GNU_SOURCE", "-DGGML_SHARED", "-DGGML_BACKEND_SHARED"])
        .args(["-DGGML_BACKEND_BUILD", "-DGGML_BACKEND_DL"])
        .args([rpc.join("../../include"), rpc.join(".."), rpc.clone()].map(include))
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rpc/stand_in.cpp"))
        .arg(rpc.join("transport.cpp"))
        .arg("-o")
        .arg(&new)
        .output()
        .map_err(|error| format!("the C++ compiler: {error}"))?;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    std::fs::rename(&new, &path).unwrap();
    Ok(path)
}

fn include(folder: PathBuf) -> String {
    format!("-I{}", folder.display())
}

/// The source that llama.cpp was built from, as its build has noted it.
fn llama_source() -> Result<PathBuf, String> {
    let backends = sys::BACKENDS_DIR.ok_or("built without dynamic-backends")?;
    let cache = Path::new(backends).with_file_name("build/CMakeCache.txt");
    let text =
        std::fs::read_to_string(&cache).map_err(|error| format!("{}: {error}", cache.display()))?;
    let source = text
        .lines()
        .find_map(|line| line.strip_prefix("CMAKE_HOME_DIRECTORY:INTERNAL="));
    let source = PathBuf::from(source.ok_or("CMake's cache does not name the source")?);
    if !source.join("ggml/src/ggml-rpc").is_dir() {
        return Err(format!("{} is not there", source.display()));
    }
    Ok(source)
}

/// A function of the module, which stays loaded.
fn function(module: &Path, name: &CStr) -> *mut c_void {
    let path = CString::new(module.to_str().unwrap()).unwrap();
    unsafe {
        let library = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
        assert!(
            !library.is_null(),
            "{}",
            CStr::from_ptr(libc::dlerror()).to_string_lossy()
        );
        let function = libc::dlsym(library, name.as_ptr());
        assert!(!function.is_null());
        function
    }
}

/// The process of the server. It listens on the loopback address alone.
#[test]
#[ignore = "what the other tests start"]
fn server() {
    type Start = unsafe extern "C" fn(
        *const c_char,
        *const c_char,
        usize,
        usize,
        *mut sys::ggml_backend_dev_t,
    );
    let endpoint = CString::new(std::env::var(ENDPOINT).unwrap()).unwrap();
    let module = PathBuf::from(std::env::var_os(MODULE).unwrap());
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        unsafe { libc::_exit(0) };
    });
    load_backends();
    unsafe {
        let start = function(&module, c"ggml_backend_rpc_start_server");
        let start = std::mem::transmute::<*mut c_void, Start>(start);
        let mut cpu = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
        start(endpoint.as_ptr(), std::ptr::null(), THREADS, 1, &mut cpu);
    }
    panic!("the server has ended");
}
