//! Which errors the log hears of. An ordinary errno is the caller's business; damage and unexplained I/O errors are the
//! administrator's, with the object's place in the backing directory (encrypted names only), once a minute for each inode, so that a program that retries for ever does not fill the disk.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::io::Errno;

use crate::fs::{FsError, NodeId};

const QUIET: Duration = Duration::from_secs(60);
/// More inodes than this in a minute, and only the first are named.
const REMEMBERED: usize = 1024;

/// Remembers of which inodes the log has heard lately.
#[derive(Debug, Default)]
pub(super) struct Reporter(Mutex<HashMap<NodeId, Instant>>);

impl Reporter {
    /// Logs the error if it is worth it, and gives the errno of the answer.
    pub(super) fn errno(
        &self,
        operation: &str,
        node: NodeId,
        path: impl Fn() -> PathBuf,
        error: &FsError,
    ) -> Errno {
        let errno = error.errno();
        if errno == Errno::IO || errno == Errno::BADMSG {
            if self.is_news(node, Instant::now()) {
                log::warn!("{operation} of {:?} (inode {node}): {error}", path());
            }
        } else {
            log::trace!("{operation} of inode {node}: {error}");
        }
        errno
    }

    fn is_news(&self, node: NodeId, now: Instant) -> bool {
        let mut heard = self.0.lock();
        if heard
            .get(&node)
            .is_some_and(|last| now.duration_since(*last) < QUIET)
        {
            return false;
        }
        if heard.len() >= REMEMBERED {
            heard.retain(|_, last| now.duration_since(*last) < QUIET);
        }
        if heard.len() >= REMEMBERED {
            return false;
        }
        heard.insert(node, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_is_reported_once_a_minute_and_a_flood_is_cut_off() {
        let reporter = Reporter::default();
        let start = Instant::now();
        assert!(reporter.is_news(7, start));
        assert!(!reporter.is_news(7, start + QUIET / 2));
        assert!(reporter.is_news(7, start + QUIET));
        let reported = (0..10_000)
            .filter(|node| reporter.is_news(100 + node, start + QUIET))
            .count();
        assert!(reported < REMEMBERED);
        assert!(reporter.is_news(7, start + QUIET * 3));
    }
}
