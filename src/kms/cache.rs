//! What was read from a file and is still so: a value is reused only while its file bears the same stamp.

use std::collections::HashMap;
use std::hash::Hash;
use std::path::Path;
use std::sync::Arc;

use parking_lot::RwLock;

use super::error::KmsError;
use super::storage::{self, Stamp};

struct Entry<V> {
    stamp: Stamp,
    settled: bool,
    value: Arc<V>,
}

/// Values read from files, by `K`. A hit costs one stat.
pub(super) struct Cache<K, V>(RwLock<HashMap<K, Entry<V>>>);

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: Eq + Hash + Clone, V> Cache<K, V> {
    /// The value of the file at `path` as it is now, or nothing where there is no such file.
    pub(super) fn get(
        &self,
        key: &K,
        path: &Path,
        load: impl FnOnce(&[u8]) -> Result<V, KmsError>,
    ) -> Result<Option<Arc<V>>, KmsError> {
        let stamp = storage::stat(path)?;
        if let Some(entry) = self.0.read().get(key)
            && entry.settled
            && Some(entry.stamp) == stamp
        {
            return Ok(Some(Arc::clone(&entry.value)));
        }
        let fresh = storage::read(path).and_then(|snapshot| match snapshot {
            None => Ok(None),
            Some(snapshot) => Ok(Some(Entry {
                stamp: snapshot.stamp,
                settled: snapshot.settled,
                value: Arc::new(load(&snapshot.bytes)?),
            })),
        });
        let mut entries = self.0.write();
        let Ok(Some(entry)) = fresh else {
            entries.remove(key);
            return fresh.map(|_| None);
        };
        let value = Arc::clone(&entry.value);
        entries.insert(key.clone(), entry);
        Ok(Some(value))
    }

    /// Drops what `goes` picks.
    pub(super) fn forget(&self, goes: impl Fn(&K) -> bool) {
        if self.0.read().keys().any(&goes) {
            self.0.write().retain(|key, _| !goes(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn no_change_is_ever_missed_however_fast() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let cache = Cache::default();
        let get = || {
            cache
                .get(&(), &path, |bytes| Ok(bytes.to_vec()))
                .unwrap()
                .map(|value| value.to_vec())
        };
        assert_eq!(get(), None);
        for i in 0..200_u8 {
            // Same length, and often the same inode and the same tick.
            storage::replace(dir.path(), "a", &[i]).unwrap();
            assert_eq!(get(), Some(vec![i]));
            fs::write(&path, [i ^ 0xff]).unwrap();
            assert_eq!(get(), Some(vec![i ^ 0xff]));
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(get(), None);
    }

    #[test]
    fn a_settled_file_is_read_once() {
        // Made long before the test, and never changed by it.
        let path = Path::new("/proc/self/exe").canonicalize().unwrap();
        let small = ["/etc/passwd", "/etc/hostname", "/etc/os-release"];
        let path = small
            .iter()
            .map(Path::new)
            .find(|path| path.is_file())
            .unwrap_or(&path);
        let cache = Cache::default();
        let loads = std::cell::Cell::new(0);
        for _ in 0..10 {
            cache
                .get(&(), path, |_| {
                    loads.set(loads.get() + 1);
                    Ok(())
                })
                .unwrap()
                .unwrap();
        }
        assert_eq!(loads.get(), 1);
    }

    #[test]
    fn what_does_not_load_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "x").unwrap();
        let cache = Cache::default();
        cache.get(&(), &path, |_| Ok(())).unwrap();
        fs::write(&path, "yy").unwrap();
        let failed = cache.get(&(), &path, |_| Err(KmsError::damaged(&path, "no")));
        assert!(failed.is_err());
        assert!(cache.0.read().is_empty());
    }
}
