//! Write-back of a file without the cost of a sync (`sync_file_range(2)`).

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

/// Waits until all data of a file has gone to the device: it is there before any change of metadata that follows, but neither
/// the device's cache nor the backing filesystem's journal is flushed for it.
///
/// # Errors
/// What the device says; ESPIPE or ENOSYS where the filesystem does not offer it.
pub fn write_back(file: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE
        | libc::SYNC_FILE_RANGE_WRITE
        | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    // SAFETY: the call takes a descriptor that is open for as long as it is borrowed, and integers.
    let result = unsafe { libc::sync_file_range(file.as_raw_fd(), 0, 0, flags) };
    if result == 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}
