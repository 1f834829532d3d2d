//! Aligned memory, and giving back pages that were read only once.

use std::alloc::{Layout, alloc, dealloc};
use std::ptr::{NonNull, null_mut};

/// A huge page: weights that lie in these need fewer address translations.
const HUGE: usize = 2 << 20;

/// Zeroed bytes, aligned to cache lines; large ones to huge pages.
pub(super) struct Memory {
    data: *mut u8,
    layout: Layout,
}

// SAFETY: plain memory; who hands out `as_ptr` answers for the rest.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Default for Memory {
    fn default() -> Memory {
        Memory {
            data: null_mut(),
            layout: Layout::new::<()>(),
        }
    }
}

impl Memory {
    /// `None` if there is not that much.
    pub fn new(bytes: usize) -> Option<Memory> {
        let align = if bytes < HUGE { 64 } else { HUGE };
        let layout = Layout::from_size_align(bytes.max(1), align).ok()?;
        // SAFETY: the size is not 0.
        let data = NonNull::new(unsafe { alloc(layout) })?;
        #[cfg(target_os = "linux")]
        if bytes >= HUGE {
            // SAFETY: memory of our own; the call is only advice.
            unsafe { libc::madvise(data.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
        }
        // Only now: the first touch of a page decides how large it is.
        // SAFETY: the memory has this size.
        unsafe { data.as_ptr().write_bytes(0, layout.size()) };
        Some(Memory {
            data: data.as_ptr(),
            layout,
        })
    }

    /// Has at least `bytes` bytes afterwards, maybe others; `None` if there are
    /// not that many.
    pub fn reserve(&mut self, bytes: usize) -> Option<()> {
        if self.data.is_null() || self.len() < bytes {
            *self = Memory::new(bytes)?;
        }
        Some(())
    }

    pub fn as_ptr(&self) -> *mut u8 {
        self.data
    }

    pub fn len(&self) -> usize {
        self.layout.size()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if !self.data.is_null() {
            // SAFETY: allocated with this layout.
            unsafe { dealloc(self.data, self.layout) }
        }
    }
}

/// Mappings of files that pages were released of.
#[derive(Default)]
pub(super) struct Released {
    /// The last one found.
    #[cfg(target_os = "linux")]
    mapping: std::ops::Range<usize>,
}

impl Released {
    /// Takes the pages of `bytes` out of this process's memory if they are
    /// those of a file: they come back from the file if somebody reads them.
    #[cfg(target_os = "linux")]
    pub fn release(&mut self, bytes: &[u8]) {
        // SAFETY: only asks.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let range = bytes.as_ptr_range();
        let first = range.start.addr().next_multiple_of(page);
        let last = range.end.addr() / page * page;
        if first >= last {
            return;
        }
        if !(self.mapping.start <= first && last <= self.mapping.end) {
            self.mapping = file_mapping(first).unwrap_or_default();
        }
        if self.mapping.start <= first && last <= self.mapping.end {
            // SAFETY: shared pages of a file that are read-only here: their
            // content stays what it is.
            unsafe { libc::madvise(first as *mut _, last - first, libc::MADV_DONTNEED) };
        }
    }

    #[cfg(not(target_os = "linux"))]
    pub fn release(&mut self, _: &[u8]) {}
}

/// The shared, read-only mapping that has `address`, as llama.cpp maps models.
#[cfg(target_os = "linux")]
fn file_mapping(address: usize) -> Option<std::ops::Range<usize>> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        let shared = fields.next()? == "r--s" && fields.nth(2)? != "0";
        (shared && (start..end).contains(&address)).then_some(start..end)
    })
}
