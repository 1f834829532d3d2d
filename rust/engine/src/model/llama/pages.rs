//! Weights in huge pages.
//!
//! llama.cpp maps the model file, in pages of 4 KiB as the system's file cache
//! has them. Every token reads all weights, and each of these pages takes an
//! address translation; in pages of 2 MiB that is rare, and a step is 2 to 4%
//! shorter (docs/performance.md). Few file systems cache in such pages. So the
//! weights are copied into memory of this process, under the hands of whoever
//! reads them: addresses and content stay. A thread does that after loading,
//! at a low priority, so the server is ready as soon as without.

use std::fs::{self, read_to_string};
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use super::memory;

const HUGE: usize = 2 << 20;
/// Bytes that are copied and then change places together, and are there twice
/// until then. Each such piece may stay a mapping of its own, of which a process
/// has 65,530 at most.
const PIECE: usize = 8 << 20;

/// Where `file` is mapped in this process to be read by others as well.
pub(super) fn mappings(file: &Path) -> Vec<Range<usize>> {
    let (Ok(metadata), Ok(maps)) = (fs::metadata(file), read_to_string("/proc/self/maps")) else {
        return Vec::new();
    };
    let inode = metadata.ino().to_string();
    let range = |line: &str| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        let is_it = fields.next()? == "r--s" && fields.nth(2)? == inode;
        is_it.then_some(start..end)
    };
    maps.lines().filter_map(range).collect()
}

/// The mapping of `file` that was not there `before`. None if there are
/// several: it was loaded twice at the same time, and whose is whose?
pub(super) fn new_mapping(file: &Path, before: &[Range<usize>]) -> Option<Range<usize>> {
    let mut new = mappings(file);
    // Of one that is being moved only a part is left.
    let is_part =
        |range: &Range<usize>, of: &Range<usize>| of.start <= range.start && range.end <= of.end;
    new.retain(|range| !before.iter().any(|other| is_part(range, other)));
    match new.as_slice() {
        [range] => Some(range.clone()),
        _ => None,
    }
}

/// The thread that copies. It ends before this is gone.
#[derive(Debug)]
pub(super) struct Copier {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Copier {
    /// Begins to move `weights`, a mapping that stays while this lives. None
    /// where that would not help.
    pub(super) fn start(weights: Range<usize>) -> Option<Self> {
        let enabled = read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").ok()?;
        if enabled.contains("[never]") {
            return None;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let copy = move || {
            give_way();
            for piece in pieces(&weights) {
                // A copy is nothing that the system could drop, as it could
                // pages of a file.
                let left = (weights.end - piece.start) as u64;
                let is_room = memory::available().is_some_and(|bytes| bytes >= 2 * left);
                if !is_room || stopped.load(Ordering::Relaxed) || move_to_huge_pages(piece).is_err()
                {
                    break;
                }
            }
        };
        let thread = thread::Builder::new().name("llm-pages".to_owned());
        Some(Self {
            stop,
            thread: Some(thread.spawn(copy).ok()?),
        })
    }
}

impl Drop for Copier {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing to tell.
            let _ = thread.join();
        }
    }
}

/// The whole huge pages in `range`, some at a time.
fn pieces(range: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    let end = range.end / HUGE * HUGE;
    (range.start.next_multiple_of(HUGE)..end)
        .step_by(PIECE)
        .map(move |start| start..end.min(start + PIECE))
}

/// Puts a copy in huge pages in place of what is mapped at `piece`. Other
/// threads may read it meanwhile: the system changes the mapping as a whole,
/// and who reads a page that is just on its way waits for it.
#[cfg(target_os = "linux")]
fn move_to_huge_pages(piece: Range<usize>) -> io::Result<()> {
    use std::ptr::{null_mut, with_exposed_provenance, with_exposed_provenance_mut};

    let len = piece.len();
    let done = |result| {
        if result == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    };
    // SAFETY: `space` is memory of our own until it takes the place of `piece`,
    // which holds the same bytes, is read-only, and is nobody else's to unmap
    // while a `Copier` lives.
    unsafe {
        let space = libc::mmap(
            null_mut(),
            len + HUGE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if space == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let copy = space.byte_add(space.addr().next_multiple_of(HUGE) - space.addr());
        let moved = done(libc::madvise(copy, len, libc::MADV_HUGEPAGE)).and_then(|()| {
            let source = with_exposed_provenance::<u8>(piece.start);
            source.copy_to_nonoverlapping(copy.cast(), len);
            done(libc::mprotect(copy, len, libc::PROT_READ))?;
            let target = with_exposed_provenance_mut::<libc::c_void>(piece.start);
            let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
            if libc::mremap(copy, len, len, flags, target) != libc::MAP_FAILED {
                return Ok(());
            }
            let failure = io::Error::last_os_error();
            // Out of memory, the system may have taken away what was there, and
            // the next who reads a weight there would read anything.
            let asked = done(libc::msync(target, len, libc::MS_ASYNC));
            if asked.is_err_and(|error| error.raw_os_error() == Some(libc::ENOMEM)) {
                eprintln!("FATAL ERROR: a part of the weights is lost: {failure}");
                std::process::abort();
            }
            Err(failure)
        });
        match moved {
            // What was around the copy.
            Ok(()) => {
                let before = copy.addr() - space.addr();
                libc::munmap(space, before);
                libc::munmap(copy.byte_add(len), HUGE - before);
            }
            Err(_) => {
                libc::munmap(space, len + HUGE);
            }
        }
        moved
    }
}

#[cfg(not(target_os = "linux"))]
fn move_to_huge_pages(_: Range<usize>) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Lets others go first, of this process as well.
fn give_way() {
    // SAFETY: no memory is touched. On Linux 0 is the calling thread; it may
    // always make room for others.
    #[cfg(target_os = "linux")]
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, 10);
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd;
    use std::ptr::null_mut;
    use std::slice;

    use super::*;

    /// A file that is mapped as llama.cpp does, until this is dropped.
    struct Mapped {
        path: std::path::PathBuf,
        bytes: &'static [u8],
    }

    impl Mapped {
        fn new(name: &str, len: usize) -> Self {
            let path =
                std::env::temp_dir().join(format!("llm-pages-{}-{name}", std::process::id()));
            let content: Vec<u8> = (0..len).map(|at| (at / 7 + at / 4096) as u8).collect();
            fs::write(&path, content).expect("a file");
            let file = File::open(&path).expect("a file");
            // SAFETY: the length of the file; unmapped with the last use.
            let bytes = unsafe {
                let start = libc::mmap(
                    null_mut(),
                    len,
                    libc::PROT_READ,
                    libc::MAP_SHARED,
                    file.as_raw_fd(),
                    0,
                );
                assert_ne!(start, libc::MAP_FAILED);
                slice::from_raw_parts(start.cast::<u8>(), len)
            };
            bytes.as_ptr().expose_provenance();
            Self { path, bytes }
        }

        fn range(&self) -> Range<usize> {
            let start = self.bytes.as_ptr().addr();
            start..start + self.bytes.len().next_multiple_of(4096)
        }

        fn is_as_written(&self) -> bool {
            let as_written = |(at, &byte): (usize, &u8)| byte == (at / 7 + at / 4096) as u8;
            self.bytes.iter().enumerate().all(as_written)
        }
    }

    impl Drop for Mapped {
        fn drop(&mut self) {
            // SAFETY: mapped in `new`, and nobody reads it any more.
            unsafe { libc::munmap(self.bytes.as_ptr().cast_mut().cast(), self.bytes.len()) };
            let _ = fs::remove_file(&self.path);
        }
    }

    #[test]
    fn only_the_mapping_that_is_new_is_ours() {
        let first = Mapped::new("new", 3 * HUGE);
        assert_eq!(mappings(&first.path), [first.range()]);
        assert_eq!(new_mapping(&first.path, &[]), Some(first.range()));
        assert_eq!(new_mapping(&first.path, &[first.range()]), None);
        let other = Mapped::new("other", HUGE);
        assert_eq!(new_mapping(&first.path, &[]), Some(first.range()));
        fs::remove_file(&other.path).expect("a file");
        fs::hard_link(&first.path, &other.path).expect("a link");
        // Mapped twice: by somebody else, or by us?
        let file = File::open(&other.path).expect("a file");
        // SAFETY: a new mapping, which nothing reads.
        unsafe {
            let flags = libc::MAP_SHARED;
            let again = libc::mmap(
                null_mut(),
                HUGE,
                libc::PROT_READ,
                flags,
                file.as_raw_fd(),
                0,
            );
            assert_eq!(new_mapping(&first.path, &[]), None);
            libc::munmap(again, HUGE);
        }
        assert!(mappings(Path::new("/nowhere")).is_empty());
    }

    #[test]
    fn whole_huge_pages_are_moved_some_at_a_time() {
        let whole = |start, end| -> Vec<_> {
            let starts_and_ends = |piece: Range<usize>| (piece.start, piece.end);
            pieces(&(start..end)).map(starts_and_ends).collect()
        };
        assert!(whole(1, HUGE).is_empty());
        assert!(whole(HUGE + 1, 2 * HUGE + 1).is_empty());
        assert_eq!(whole(HUGE, 2 * HUGE), [(HUGE, 2 * HUGE)]);
        let (second, third) = (HUGE + PIECE, HUGE + 2 * PIECE);
        let end = third + 3 * HUGE;
        assert_eq!(
            whole(1, end + 1),
            [(HUGE, second), (second, third), (third, end)]
        );
    }

    #[test]
    fn who_reads_meanwhile_sees_no_difference() {
        let file = Mapped::new("read", PIECE + 5 * HUGE + 4097);
        let whole: usize = pieces(&file.range()).map(|piece| piece.len()).sum();
        assert!(whole >= PIECE + 4 * HUGE);
        let is_moved = AtomicBool::new(false);
        let moved = thread::scope(|scope| {
            let (begun, wait) = std::sync::mpsc::channel();
            for _ in 0..2 {
                let begun = begun.clone();
                let (file, is_moved) = (&file, &is_moved);
                scope.spawn(move || {
                    // Until all of it is moved, and once more.
                    loop {
                        let is_last = is_moved.load(Ordering::Acquire);
                        assert!(file.is_as_written());
                        let _ = begun.send(());
                        if is_last {
                            break;
                        }
                    }
                });
            }
            wait.recv().expect("a reader");
            let moved = pieces(&file.range()).try_for_each(move_to_huge_pages);
            is_moved.store(true, Ordering::Release);
            moved
        });
        moved.expect("memory");
        assert!(file.is_as_written());
        let left: usize = mappings(&file.path).iter().map(Range::len).sum();
        assert_eq!(left, file.range().len() - whole);
    }

    #[test]
    fn it_ends_with_its_owner() {
        let file = Mapped::new("owner", 8 * PIECE);
        let Some(copier) = Copier::start(file.range()) else {
            return; // A system without huge pages.
        };
        let stop = Arc::downgrade(&copier.stop);
        drop(copier);
        assert_eq!(stop.strong_count(), 0, "the thread holds the other one");
        assert!(file.is_as_written());
    }

    #[test]
    fn all_of_it_is_moved() {
        let file = Mapped::new("all", 3 * PIECE);
        let Some(mut copier) = Copier::start(file.range()) else {
            return; // A system without huge pages.
        };
        let thread = copier.thread.take().expect("a thread");
        thread.join().expect("no panic");
        let left: usize = mappings(&file.path).iter().map(Range::len).sum();
        assert!(left < 2 * HUGE);
        assert!(file.is_as_written());
    }

    #[test]
    fn what_cannot_be_moved_stays_where_it_is() {
        let file = Mapped::new("stays", 2 * HUGE);
        // Not at the beginning of a page: refused by the system.
        let start = file.range().start + 1;
        assert!(move_to_huge_pages(start..start + HUGE).is_err());
        assert_eq!(mappings(&file.path), [file.range()]);
        assert!(file.is_as_written());
    }

    #[test]
    fn a_part_of_one_that_is_being_moved_is_not_new() {
        let file = Mapped::new("part", 3 * HUGE);
        let before = file.range().start - HUGE..file.range().end;
        let before = std::slice::from_ref(&before);
        assert_eq!(new_mapping(&file.path, before), None);
    }
}
