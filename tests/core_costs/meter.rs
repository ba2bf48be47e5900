//! Counts what an operation asks for: backing calls by kind, data keys of the key service, and cryptography.

use std::fmt;
use std::sync::{Arc, Mutex};

use cmkfs::crypto::counted::{self, Counted};
use cmkfs::crypto::envelope::DataKey;
use cmkfs::format::envelope::{EncryptionContext, Envelope};
use cmkfs::format::header::KeyBinding;
use cmkfs::fs::backing::{Call, Observer};
use cmkfs::fs::keys::{KeyPort, KeyUnavailable};
use cmkfs::ids::KeyId;
use cmkfs::volume::keys::ServicePort;
use rustix::io::Errno;

/// The order in which calls are told, and their names.
const CALLS: [(Call, &str); 15] = [
    (Call::Open, "open"),
    (Call::Stat, "stat"),
    (Call::Make, "make"),
    (Call::Remove, "remove"),
    (Call::Rename, "rename"),
    (Call::ReadLink, "readlink"),
    (Call::Read, "read"),
    (Call::Write, "write"),
    (Call::List, "list"),
    (Call::Resize, "resize"),
    (Call::Seek, "seek"),
    (Call::Sync, "sync"),
    (Call::Change, "change"),
    (Call::ReadXattr, "getxattr"),
    (Call::WriteXattr, "setxattr"),
];

/// Looks on at the backing calls of one filesystem, and at what it asks of the key service.
#[derive(Clone, Default)]
pub struct Meter {
    calls: Arc<Mutex<Vec<Call>>>,
    data_keys: Arc<Mutex<u64>>,
}

/// What an operation has asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost {
    /// As [`CALLS`] lists them.
    calls: [u64; CALLS.len()],
    data_keys: u64,
    crypto: Counted,
}

impl Meter {
    /// What `work` costs, which must do all of it in this thread.
    pub fn cost<T>(&self, work: impl FnOnce() -> T) -> Cost {
        self.take();
        let before = counted::so_far();
        work();
        let crypto = counted::so_far() - before;
        let (made, data_keys) = self.take();
        let calls = CALLS.map(|(call, _)| made.iter().filter(|other| **other == call).count());
        Cost {
            calls: calls.map(|count| count as u64),
            data_keys,
            crypto,
        }
    }

    fn take(&self) -> (Vec<Call>, u64) {
        let calls = std::mem::take(&mut *self.calls.lock().unwrap());
        (calls, std::mem::take(&mut *self.data_keys.lock().unwrap()))
    }
}

impl Observer for Meter {
    fn before(&self, call: Call) -> Result<(), Errno> {
        self.calls.lock().unwrap().push(call);
        Ok(())
    }
}

impl Cost {
    /// The part of each of `count` things that were done in addition to `base`; fails where they do not cost the same.
    pub fn of_each(&self, base: &Self, count: u64) -> Self {
        let part = |all: u64, base: u64| {
            let more = all - base;
            assert_eq!(more % count, 0, "{more} calls for {count} of the same kind");
            more / count
        };
        let crypto = self.crypto - base.crypto;
        Self {
            calls: std::array::from_fn(|at| part(self.calls[at], base.calls[at])),
            data_keys: part(self.data_keys, base.data_keys),
            crypto: Counted {
                kdf: part(crypto.kdf, 0),
                keys: part(crypto.keys, 0),
                aead: part(crypto.aead, 0),
            },
        }
    }
}

/// Backing calls; and behind a semicolon data keys of the key service (made or unwrapped), steps of HKDF, AEAD keys that
/// were expanded, and buffers that were sealed or opened. What does not occur is left out.
impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = |counts: Vec<(&str, u64)>| {
            let there = counts.into_iter().filter(|(_, count)| *count > 0);
            let words: Vec<_> = there
                .map(|(name, count)| format!("{name} {count}"))
                .collect();
            words.join(", ")
        };
        let calls = CALLS.iter().zip(self.calls);
        let calls = listed(calls.map(|((_, name), count)| (*name, count)).collect());
        let crypto = listed(vec![
            ("data key", self.data_keys),
            ("kdf", self.crypto.kdf),
            ("key", self.crypto.keys),
            ("aead", self.crypto.aead),
        ]);
        let text = format!("{calls}; {crypto}");
        f.write_str(text.trim_matches([';', ' ']))
    }
}

/// The key service, counted.
pub struct CountingPort {
    pub port: ServicePort,
    pub meter: Meter,
}

impl CountingPort {
    fn count(&self) {
        *self.meter.data_keys.lock().unwrap() += 1;
    }
}

impl KeyPort for CountingPort {
    fn generate_data_key(
        &self,
        binding: &KeyBinding,
        context: &EncryptionContext,
    ) -> Result<(DataKey, Envelope), KeyUnavailable> {
        self.count();
        self.port.generate_data_key(binding, context)
    }

    fn unwrap_data_key(
        &self,
        envelope: &Envelope,
        context: &EncryptionContext,
    ) -> Result<DataKey, KeyUnavailable> {
        self.count();
        self.port.unwrap_data_key(envelope, context)
    }

    fn rewrap_data_key(
        &self,
        binding: &KeyBinding,
        envelope: &Envelope,
        context: &EncryptionContext,
    ) -> Result<Option<Envelope>, KeyUnavailable> {
        self.count();
        self.port.rewrap_data_key(binding, envelope, context)
    }

    fn check(&self, key: &KeyId) -> Result<(), KeyUnavailable> {
        self.port.check(key)
    }
}
