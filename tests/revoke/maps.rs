//! Mapped files and the page cache: what the kernel has of a file is gone with its key.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use super::common::Volume;
use super::{SIZE, disable, enable};

const PAGE: usize = 4096;

/// A mapped file.
struct Map {
    start: NonNull<u8>,
    length: usize,
}

impl Map {
    fn new(file: &File, length: usize, kind: libc::c_int) -> Self {
        let protection = if kind == libc::MAP_PRIVATE {
            libc::PROT_READ | libc::PROT_WRITE
        } else {
            libc::PROT_READ
        };
        // SAFETY: a new mapping where the kernel chooses; the result is checked.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                protection,
                kind,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(
            start,
            libc::MAP_FAILED,
            "{}",
            std::io::Error::last_os_error()
        );
        Self {
            start: NonNull::new(start.cast()).unwrap(),
            length,
        }
    }

    fn byte(&self, at: usize) -> u8 {
        assert!(at < self.length);
        // SAFETY: inside the mapping, which lives as long as this. Volatile, because it changes behind the compiler's back.
        unsafe { self.start.add(at).as_ptr().read_volatile() }
    }

    fn set(&self, at: usize, byte: u8) {
        assert!(at < self.length);
        // SAFETY: inside the mapping, which is writable where tests call this.
        unsafe { self.start.add(at).as_ptr().write_volatile(byte) }
    }

    /// Pages of it that are in the page cache.
    fn resident(&self) -> usize {
        let mut pages = vec![0_u8; self.length.div_ceil(PAGE)];
        // SAFETY: the range is this mapping, and there is one byte for each of its pages.
        let done =
            unsafe { libc::mincore(self.start.as_ptr().cast(), self.length, pages.as_mut_ptr()) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        pages.iter().filter(|page| **page & 1 == 1).count()
    }

    /// The signal that kills a process that touches a byte, if any does.
    fn signal_at(&self, at: usize) -> Option<i32> {
        // SAFETY: the child touches one byte of memory it has inherited and ends, nothing else.
        let child = unsafe { libc::fork() };
        assert!(child >= 0, "{}", std::io::Error::last_os_error());
        if child == 0 {
            self.byte(at);
            // SAFETY: ends the child without running anything of its parent's.
            unsafe { libc::_exit(0) };
        }
        let mut status = 0;
        // SAFETY: waits for our own child, and writes to a variable of ours.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!(waited, child);
        libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status))
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the mapping that this has made, which nobody uses any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}

#[test]
fn a_process_that_touches_a_mapped_page_gets_sigbus_and_the_page_is_back_with_the_key() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), vec![7; SIZE]).unwrap();
    let file = File::open(volume.path("file")).unwrap();
    let shared = Map::new(&file, SIZE, libc::MAP_SHARED);
    let private = Map::new(&file, SIZE, libc::MAP_PRIVATE);
    let untouched = Map::new(&file, SIZE, libc::MAP_PRIVATE);
    assert_eq!((shared.byte(0), private.byte(0)), (7, 7));
    // A page that a program has copied for itself by writing to it is the program's own memory.
    private.set(PAGE, 8);
    disable(&volume);
    assert_eq!(shared.signal_at(0), Some(libc::SIGBUS));
    assert_eq!(private.signal_at(0), Some(libc::SIGBUS));
    assert_eq!(untouched.signal_at(2 * PAGE), Some(libc::SIGBUS));
    assert_eq!(private.signal_at(PAGE), None);
    enable(&volume);
    assert_eq!(shared.signal_at(0), None);
    assert_eq!(
        (shared.byte(0), private.byte(0), private.byte(PAGE)),
        (7, 7, 8)
    );
    assert_eq!(untouched.byte(2 * PAGE), 7);
}

#[test]
fn nothing_of_a_file_is_left_in_the_page_cache() {
    let volume = Volume::mounted();
    let length = 4 << 20;
    for name in ["open", "closed"] {
        fs::write(volume.path(name), vec![7; length]).unwrap();
        fs::read(volume.path(name)).unwrap();
    }
    let map = |name| {
        Map::new(
            &File::open(volume.path(name)).unwrap(),
            length,
            libc::MAP_SHARED,
        )
    };
    let open = map("open");
    assert_eq!(open.resident(), length / PAGE);
    assert_eq!(
        map("closed").resident(),
        length / PAGE,
        "closing drops nothing"
    );
    disable(&volume);
    assert_eq!(open.resident(), 0);
    enable(&volume);
    assert_eq!(open.resident(), 0);
    // Opening keeps what is cached, so this was dropped while it was closed.
    assert_eq!(map("closed").resident(), 0);
    assert_eq!(open.byte(length - 1), 7);
}
