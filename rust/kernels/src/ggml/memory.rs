//! Aligned memory, and giving back pages that were read only once.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::{NonNull, null_mut};

/// A huge page: weights that lie in these need fewer address translations.
#[cfg(target_os = "linux")]
const HUGE: usize = 2 << 20;

/// Zeroed bytes, aligned to cache lines; large ones to huge pages, which the
/// system brings when they are touched first.
pub(super) struct Memory {
    data: *mut u8,
    len: usize,
    origin: Origin,
}

/// Where memory comes from.
enum Origin {
    Allocator(Layout),
    /// A mapping of its own: address and size.
    #[cfg(target_os = "linux")]
    System(*mut libc::c_void, usize),
}

// SAFETY: plain memory; who hands out `as_ptr` answers for the rest.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Default for Memory {
    fn default() -> Memory {
        Memory {
            data: null_mut(),
            len: 0,
            origin: Origin::Allocator(Layout::new::<()>()),
        }
    }
}

impl Memory {
    /// `None` if there is not that much.
    pub fn new(bytes: usize) -> Option<Memory> {
        #[cfg(target_os = "linux")]
        if bytes >= HUGE {
            return Memory::mapped(bytes);
        }
        let layout = Layout::from_size_align(bytes.max(1), 64).ok()?;
        // SAFETY: the size is not 0.
        let data = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Memory {
            data: data.as_ptr(),
            len: layout.size(),
            origin: Origin::Allocator(layout),
        })
    }

    /// Pages of the system's: they are zero without being written twice.
    #[cfg(target_os = "linux")]
    fn mapped(bytes: usize) -> Option<Memory> {
        let size = bytes.checked_next_multiple_of(HUGE)?.checked_add(HUGE)?;
        // SAFETY: a new mapping; the advice is about all of its huge pages.
        unsafe {
            let start = libc::mmap(
                null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            );
            if start == libc::MAP_FAILED {
                return None;
            }
            let data = start.byte_add(start.addr().next_multiple_of(HUGE) - start.addr());
            libc::madvise(data, size - HUGE, libc::MADV_HUGEPAGE);
            Some(Memory {
                data: data.cast(),
                len: bytes,
                origin: Origin::System(start, size),
            })
        }
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
        self.len
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        match self.origin {
            Origin::Allocator(_) if self.data.is_null() => {}
            // SAFETY: allocated with this layout.
            Origin::Allocator(layout) => unsafe { dealloc(self.data, layout) },
            // SAFETY: a mapping of our own, which nobody else has.
            #[cfg(target_os = "linux")]
            Origin::System(start, size) => unsafe {
                libc::munmap(start, size);
            },
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
