//! What becomes of the tensors of a model while it is loaded, and of the nodes
//! of graphs.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fmt;

use llama_cpp_sys_2 as sys;

use super::bindings::Tensor;
use super::memory::Released;
use super::tensor::source;

/// Which tensors of a model our kernels have taken, by type.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Report {
    /// Number of tensors of each type that are packed.
    pub taken: BTreeMap<String, usize>,
    /// Number of tensors of each type that llama.cpp keeps.
    pub left: BTreeMap<String, usize>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.taken.is_empty() && self.left.is_empty() {
            return f
                .write_str("no tensors taken: all are an accelerator's, or in its host memory");
        }
        let part = |f: &mut fmt::Formatter<'_>, types: &BTreeMap<String, usize>, what| {
            write!(f, "{} tensors {what}", types.values().sum::<usize>())?;
            for (i, (name, count)) in types.iter().enumerate() {
                write!(f, "{}{name} {count}", if i == 0 { " (" } else { ", " })?;
            }
            f.write_str(if types.is_empty() { "" } else { ")" })
        };
        part(f, &self.taken, "taken")?;
        f.write_str(", ")?;
        part(f, &self.left, "left to llama.cpp")
    }
}

/// What of a graph is left to ggml: rows are the same bits together and alone
/// only where it is nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub enum Left {
    /// Neither products nor attention.
    #[default]
    Nothing,
    /// Products with weights, or attention.
    Weights,
    /// Products of what was computed, which attention is made of where it is not
    /// one operation.
    Scores,
}

impl Left {
    /// By a node that ggml computes.
    pub(super) fn of(node: &Tensor) -> Left {
        match node.op {
            sys::GGML_OP_FLASH_ATTN_EXT | sys::GGML_OP_MUL_MAT_ID => Left::Weights,
            sys::GGML_OP_MUL_MAT => match source(node, 0) {
                Some(weight) if weight.op == sys::GGML_OP_NONE => Left::Weights,
                _ => Left::Scores,
            },
            _ => Left::Nothing,
        }
    }
}

/// A model that this thread loads.
struct Load {
    offer: bool,
    report: Report,
    released: Released,
}

thread_local! {
    /// llama.cpp loads a model on the thread that asks for it.
    static LOAD: RefCell<Option<Load>> = const { RefCell::new(None) };
    /// Of the graphs that it computed.
    static LEFT: Cell<Left> = const { Cell::new(Left::Nothing) };
}

/// Runs `load`, which loads a model on this thread. `offer`: whether its
/// weights may be packed. Without this function they may, and nothing says
/// which were.
pub fn observe<T>(offer: bool, load: impl FnOnce() -> T) -> (T, Report) {
    /// Also if `load` panics.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            LOAD.with(|load| load.take());
        }
    }

    LOAD.with(|cell| {
        cell.replace(Some(Load {
            offer,
            report: Report::default(),
            released: Released::default(),
        }))
    });
    let _end = End;
    let value = load();
    let report = LOAD.with(|load| load.borrow().as_ref().map(|load| load.report.clone()));
    (value, report.unwrap_or_default())
}

/// What was left to ggml of the graphs that this thread has computed since it
/// asked last.
pub fn take_left() -> Left {
    LEFT.take()
}

/// So much is left to ggml of a graph that this thread computes.
pub(super) fn leave(left: Left) {
    LEFT.set(LEFT.get().max(left));
}

/// Whether weights that this thread loads may be packed.
pub(super) fn offers() -> bool {
    LOAD.with(|load| load.borrow().as_ref().is_none_or(|load| load.offer))
}

/// llama.cpp asked whether a weight of this type can be packed.
pub(super) fn count(kind: sys::ggml_type, taken: bool) {
    LOAD.with(|load| {
        if let Some(load) = load.borrow_mut().as_mut() {
            // SAFETY: names of types are static strings.
            let name = unsafe { CStr::from_ptr(sys::ggml_type_name(kind)) };
            let report = &mut load.report;
            let types = if taken {
                &mut report.taken
            } else {
                &mut report.left
            };
            *types
                .entry(name.to_string_lossy().into_owned())
                .or_default() += 1;
        }
    });
}

/// `source` was packed and is not needed any more.
pub(super) fn release(source: &[u8]) {
    LOAD.with(|load| {
        if let Some(load) = load.borrow_mut().as_mut() {
            load.released.release(source);
        }
    });
}
