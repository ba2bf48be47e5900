//! Extended attributes of what is behind a name in a directory (`getxattrat(2)`, Linux 6.13), which otherwise takes a way
//! through /proc.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

/// The same on every architecture that Rust runs on. linux/include/uapi/asm-generic/unistd.h.
const GETXATTRAT: libc::c_long = 464;

/// linux/include/uapi/linux/xattr.h
#[repr(C, align(8))]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

static IS_MISSING: AtomicBool = AtomicBool::new(false);

/// Reads the value of an attribute into `buffer`. Symlinks are not followed. Returns its length in bytes; an empty buffer
/// only asks for that.
///
/// # Errors
/// As of lgetxattr(2); ENOSYS on older kernels, at no cost from the second time on.
pub fn get_at(
    directory: BorrowedFd<'_>,
    name: &CStr,
    attribute: &CStr,
    buffer: &mut [u8],
) -> Result<usize, Errno> {
    if IS_MISSING.load(Ordering::Relaxed) {
        return Err(Errno::NOSYS);
    }
    let args = XattrArgs {
        value: buffer.as_mut_ptr() as u64,
        size: u32::try_from(buffer.len()).unwrap_or(u32::MAX),
        flags: 0,
    };
    // SAFETY: both strings end with a zero byte and live through the call, as the descriptor and `args` do; the kernel writes
    // at most `size` bytes into the buffer.
    let result = unsafe {
        libc::syscall(
            GETXATTRAT,
            directory.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            attribute.as_ptr(),
            &raw const args,
            size_of::<XattrArgs>(),
        )
    };
    if let Ok(length) = usize::try_from(result) {
        return Ok(length);
    }
    let error = Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO);
    if error == Errno::NOSYS {
        IS_MISSING.store(true, Ordering::Relaxed);
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn it_says_what_lgetxattr_says() {
        // Temporary files may lie on a filesystem without user attributes.
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, "").unwrap();
        let set = rustix::fs::setxattr(&path, c"user.a", b"value", rustix::fs::XattrFlags::empty());
        let directory = File::open(folder.path()).unwrap();
        let mut buffer = [0; 16];
        let mut get = |attribute: &CStr, size: usize| {
            get_at(directory.as_fd(), c"f", attribute, &mut buffer[..size])
        };
        if get(c"user.b", 16) == Err(Errno::NOSYS) {
            return;
        }
        set.unwrap();
        assert_eq!(get(c"user.a", 0), Ok(5));
        assert_eq!(get(c"user.a", 3), Err(Errno::RANGE));
        assert_eq!(get(c"user.a", 16), Ok(5));
        assert_eq!(get(c"user.b", 16), Err(Errno::NODATA));
        assert_eq!(buffer[..5], *b"value");
    }
}
