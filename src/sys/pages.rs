//! Memory in whole pages, from the kernel: zeroed, page-aligned, at one place for as long as it lives, and taken up only as
//! it is touched.

use std::ffi::c_void;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// Bytes in whole pages.
#[derive(Debug)]
pub struct Pages {
    start: NonNull<c_void>,
    length: usize,
}

// SAFETY: nobody else has this memory.
unsafe impl Send for Pages {}
// SAFETY: shared references only read it.
unsafe impl Sync for Pages {}

impl Pages {
    /// So many bytes, of which there is at least one.
    ///
    /// # Errors
    /// Where the system has no memory, or none was asked for.
    pub fn new(length: usize) -> io::Result<Self> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, at a place that the kernel chooses.
        let start = unsafe {
            mmap_anonymous(
                std::ptr::null_mut(),
                length,
                protection,
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )?
        };
        let start = NonNull::new(start).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, length })
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped with this length until dropped, and zeroed.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and it is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.length) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`, and nobody has a reference any more.
        if let Err(error) = unsafe { munmap(self.start.as_ptr(), self.length) } {
            log::debug!("memory stays mapped: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_aligned_zeroed_and_writable_to_the_end() {
        let mut pages = Pages::new(8192 + 100).unwrap();
        assert_eq!(pages.as_ptr() as usize % 4096, 0);
        assert_eq!(pages.len(), 8292);
        assert!(pages.iter().all(|byte| *byte == 0));
        pages[8291] = 7;
        assert_eq!(pages.last(), Some(&7));
        assert!(Pages::new(0).is_err());
    }
}
