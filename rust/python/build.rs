//! The libraries of llama.cpp lie in `lib/` beside the module. DT_RPATH, not
//! RUNPATH: it holds for their own dependencies too, and comes before
//! LD_LIBRARY_PATH, so no other ggml can take their place.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    match std::env::var("CARGO_CFG_TARGET_OS").as_deref() {
        Ok("linux") => {
            println!("cargo::rustc-cdylib-link-arg=-Wl,--disable-new-dtags,-rpath,$ORIGIN/lib");
        }
        Ok("macos") => {
            println!("cargo::rustc-cdylib-link-arg=-Wl,-rpath,@loader_path/lib");
        }
        _ => {}
    }
}
