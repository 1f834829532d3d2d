//! Makes models of other types of a GGUF file, to time and to compare:
//! `requantize MODEL.gguf FOLDER Q4_0 Q8_0 Q4_K Q6_K F32 …`.

#[path = "../tests/vehicle/llama.rs"]
mod llama;

use std::ffi::CString;
use std::path::Path;

use llama_cpp_sys_2 as sys;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(source), Some(folder)) = (arguments.next(), arguments.next()) else {
        panic!("usage: requantize MODEL.gguf FOLDER TYPE …");
    };
    llama::start();
    for name in arguments {
        let stem = Path::new(&source).file_stem().unwrap().to_string_lossy();
        let target = format!("{folder}/{}.{name}.gguf", stem.split('.').next().unwrap());
        let [from, to] = [&source, &target].map(|path| CString::new(path.as_str()).unwrap());
        // SAFETY: the paths outlive the call, the parameters hold no pointers.
        let status = unsafe {
            let mut params = sys::llama_model_quantize_default_params();
            params.ftype = file_type(&name);
            params.allow_requantize = true;
            sys::llama_model_quantize(from.as_ptr(), to.as_ptr(), &params)
        };
        assert_eq!(status, 0, "{target}");
        println!("{target}");
    }
}

fn file_type(name: &str) -> sys::llama_ftype {
    match name {
        "F32" => sys::LLAMA_FTYPE_ALL_F32,
        "BF16" => sys::LLAMA_FTYPE_MOSTLY_BF16,
        "F16" => sys::LLAMA_FTYPE_MOSTLY_F16,
        "Q4_0" => sys::LLAMA_FTYPE_MOSTLY_Q4_0,
        "Q4_1" => sys::LLAMA_FTYPE_MOSTLY_Q4_1,
        "Q5_0" => sys::LLAMA_FTYPE_MOSTLY_Q5_0,
        "Q5_1" => sys::LLAMA_FTYPE_MOSTLY_Q5_1,
        "Q8_0" => sys::LLAMA_FTYPE_MOSTLY_Q8_0,
        "Q4_K" => sys::LLAMA_FTYPE_MOSTLY_Q4_K_M,
        "Q5_K" => sys::LLAMA_FTYPE_MOSTLY_Q5_K_M,
        "Q6_K" => sys::LLAMA_FTYPE_MOSTLY_Q6_K,
        "IQ4_NL" => sys::LLAMA_FTYPE_MOSTLY_IQ4_NL,
        _ => panic!("unknown type {name}"),
    }
}
