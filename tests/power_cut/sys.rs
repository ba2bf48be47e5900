//! Two system calls that the standard library has no name for.

use std::fs::File;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

/// Sends some pages of a file on their way to the disk, and waits for them, without anything else of the file.
pub fn send_pages(file: &File, range: Range<u64>) {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    let (start, length) = (
        range.start.cast_signed(),
        (range.end - range.start).cast_signed(),
    );
    // SAFETY: no memory is passed. What fails is of no interest: nothing is promised.
    unsafe { libc::sync_file_range(file.as_raw_fd(), start, length, flags) };
}

/// Writes to a file through memory, and has it on the disk when it returns.
pub fn write_mapped(file: &File, length: usize, at: usize, bytes: &[u8]) {
    assert!(at + bytes.len() <= length);
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let fd = file.as_raw_fd();
    // SAFETY: the kernel chooses an address that is free.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            access,
            libc::MAP_SHARED,
            fd,
            0,
        )
    };
    assert_ne!(
        start,
        libc::MAP_FAILED,
        "{}",
        std::io::Error::last_os_error()
    );
    let start = NonNull::new(start.cast::<u8>()).unwrap();
    // SAFETY: inside the mapping, as is asserted above, and nobody else knows of it.
    unsafe {
        start
            .add(at)
            .copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len())
    };
    // SAFETY: the mapping that was made here.
    let synced = unsafe { libc::msync(start.as_ptr().cast(), length, libc::MS_SYNC) };
    let error = std::io::Error::last_os_error();
    // SAFETY: the mapping that was made here, which nobody uses any more.
    unsafe { libc::munmap(start.as_ptr().cast(), length) };
    assert_eq!(synced, 0, "msync: {error}");
}
