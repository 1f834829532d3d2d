//! The buffer type of packed weights: packs what is written, unpacks what is
//! read.

use std::ffi::{c_char, c_void};
use std::slice::{from_raw_parts, from_raw_parts_mut};
use std::sync::OnceLock;

use llama_cpp_sys_2 as sys;

use super::bindings::{
    Buffer, BufferInterface, BufferType, BufferTypeInterface, Device, Tensor,
    ggml_backend_buffer_init,
};
use super::hooks::tier;
use super::memory::Memory;
use super::report;
use super::weights::Packing;

/// The address of the one buffer type.
struct Handle(*mut BufferType);

// SAFETY: written once, before it is shared; lives as long as the process.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

static BUFFER_TYPE: OnceLock<Handle> = OnceLock::new();

/// The buffer type, made for the CPU device at the first call.
pub(super) fn buffer_type(device: *mut Device) -> *mut BufferType {
    let make = || {
        Handle(Box::leak(Box::new(BufferType {
            interface: BufferTypeInterface {
                get_name,
                alloc_buffer,
                alloc_buffer_n: None,
                get_alignment,
                get_max_size: None,
                get_alloc_size: Some(get_alloc_size),
                get_alloc_size_n: None,
                is_host: None,
            },
            device,
            context: std::ptr::null_mut(),
        })))
    };
    BUFFER_TYPE.get_or_init(make).0
}

/// Whether this is the buffer type of packed weights.
pub(super) fn is_ours(buffer_type: *const BufferType) -> bool {
    BUFFER_TYPE
        .get()
        .is_some_and(|ours| std::ptr::eq(ours.0, buffer_type))
}

/// The buffer of `tensor`, if it is one of packed weights.
pub(super) fn packed_buffer(tensor: &Tensor) -> Option<&Buffer> {
    // SAFETY: the buffer of a tensor is null or valid.
    let buffer = unsafe { tensor.buffer.cast::<Buffer>().as_ref() }?;
    is_ours(buffer.buffer_type).then_some(buffer)
}

unsafe extern "C" fn get_name(_: *mut BufferType) -> *const c_char {
    c"CPU_PACKED".as_ptr()
}

unsafe extern "C" fn get_alignment(_: *mut BufferType) -> usize {
    64
}

unsafe extern "C" fn alloc_buffer(buffer_type: *mut BufferType, size: usize) -> *mut Buffer {
    let Some(memory) = Memory::new(size) else {
        return std::ptr::null_mut();
    };
    let interface = BufferInterface {
        free_buffer: Some(free_buffer),
        get_base: Some(get_base),
        init_tensor: None,
        memset_tensor: None,
        set_tensor: Some(set_tensor),
        get_tensor: Some(get_tensor),
        set_tensor_2d: None,
        get_tensor_2d: None,
        cpy_tensor: None,
        clear: Some(clear),
        reset: None,
    };
    let context = Box::into_raw(Box::new(memory)).cast();
    // SAFETY: a struct of this layout is what ggml expects (bindings.rs), and
    // `free_buffer` frees the context.
    unsafe { ggml_backend_buffer_init(buffer_type, interface, context, size) }
}

unsafe extern "C" fn get_alloc_size(_: *mut BufferType, tensor: *const Tensor) -> usize {
    // SAFETY: ggml passes a valid tensor.
    unsafe { Packing::of(tier(), &*tensor).map_or_else(|| sys::ggml_nbytes(tensor), |p| p.bytes()) }
}

unsafe extern "C" fn free_buffer(buffer: *mut Buffer) {
    // SAFETY: the context is the box of `alloc_buffer`, and ggml frees once.
    drop(unsafe { Box::from_raw((*buffer).context.cast::<Memory>()) });
}

unsafe extern "C" fn get_base(buffer: *mut Buffer) -> *mut c_void {
    // SAFETY: the context is the box of `alloc_buffer`.
    unsafe { (*(*buffer).context.cast::<Memory>()).as_ptr().cast() }
}

unsafe extern "C" fn clear(buffer: *mut Buffer, value: u8) {
    // SAFETY: the context is the box of `alloc_buffer`; nobody reads meanwhile.
    unsafe {
        let memory = &*(*buffer).context.cast::<Memory>();
        memory.as_ptr().write_bytes(value, memory.len());
    }
}

/// The tensor that has the memory of `tensor`, and the offset of `tensor` in
/// it, in ggml's bytes.
///
/// # Safety
/// `tensor` is valid.
unsafe fn root<'a>(tensor: *const Tensor) -> (&'a Tensor, usize) {
    // SAFETY: the source of a view is null or valid, and never a view itself.
    unsafe {
        match (*tensor).view_src.as_ref() {
            Some(source) => (source, (*tensor).view_offs),
            None => (&*tensor, 0),
        }
    }
}

unsafe extern "C" fn set_tensor(
    _: *mut Buffer,
    tensor: *mut Tensor,
    data: *const c_void,
    offset: usize,
    size: usize,
) {
    // SAFETY: ggml passes a valid tensor that was allocated in this buffer,
    // and a range that lies within it; nobody else uses it meanwhile.
    unsafe {
        let (tensor, start) = root(tensor);
        let data = from_raw_parts(data.cast::<u8>(), size);
        let range = start + offset..start + offset + size;
        let Some(packing) = Packing::of(tier(), tensor) else {
            let bytes = from_raw_parts_mut(tensor.data.cast::<u8>(), sys::ggml_nbytes(tensor));
            return bytes[range].copy_from_slice(data);
        };
        let packed = from_raw_parts_mut(tensor.data.cast::<u8>(), packing.bytes());
        let total = packing.matrices * packing.ggml_matrix_bytes();
        if size == total {
            packing.pack(data, packed);
            report::release(data);
        } else {
            // A part: llama.cpp writes whole tensors, so this may be slow.
            let mut whole = vec![0; total];
            packing.unpack(packed, &mut whole);
            whole[range].copy_from_slice(data);
            packing.pack(&whole, packed);
        }
    }
}

unsafe extern "C" fn get_tensor(
    _: *mut Buffer,
    tensor: *const Tensor,
    data: *mut c_void,
    offset: usize,
    size: usize,
) {
    // SAFETY: as in `set_tensor`.
    unsafe {
        let (tensor, start) = root(tensor);
        let range = start + offset..start + offset + size;
        let whole = unpacked(tensor);
        from_raw_parts_mut(data.cast::<u8>(), size).copy_from_slice(&whole[range]);
    }
}

/// The bytes of a tensor as ggml has them.
///
/// # Safety
/// `tensor` was allocated in a buffer of packed weights and is no view.
pub(super) unsafe fn unpacked(tensor: &Tensor) -> Vec<u8> {
    // SAFETY: `get_alloc_size` made room for the packed bytes.
    unsafe {
        let size = sys::ggml_nbytes(tensor);
        let Some(packing) = Packing::of(tier(), tensor) else {
            return from_raw_parts(tensor.data.cast::<u8>(), size).to_vec();
        };
        let mut whole = vec![0; size];
        let packed = from_raw_parts(tensor.data.cast::<u8>(), packing.bytes());
        packing.unpack(packed, &mut whole);
        whole
    }
}
