//! What running mounts do with data keys, counted: one line of the audit log for many of a kind, so that reading files
//! costs no write. GenerateDataKey, Decrypt and ReEncrypt are written down this way, done or refused.
//!
//! Nothing is lost while the process lives: what cannot be written stays counted, and until it is written no further data
//! key is given out.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::KeyService;
use crate::clock::Timestamp;
use crate::format::envelope::EncryptionContext;
use crate::ids::{KeyId, MaterialId, VolumeId};
use crate::kms::error::KmsError;
use crate::kms::event::{Event, Refusal};
use crate::kms::key::{KeyRef, rfc3339_text};
use crate::kms::{reserve, transaction};

/// So many kinds are counted before they are written down at once: forged envelopes could name any number of keys.
const MAX_KINDS: usize = 4096;

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Use {
    pub operation: &'static str,
    /// The key as it was asked for.
    pub asked: KeyRef,
    pub key: Option<KeyId>,
    pub material: Option<MaterialId>,
    /// ReEncrypt only: the key and material that it was under.
    pub source: Option<(KeyId, MaterialId)>,
    pub volume: VolumeId,
}

impl Use {
    pub(super) fn new(operation: &'static str, asked: KeyRef, context: &EncryptionContext) -> Self {
        Self {
            operation,
            asked,
            key: None,
            material: None,
            source: None,
            volume: context.volume,
        }
    }
}

/// How often, from when to when.
#[derive(Debug, Clone, Copy)]
struct Count {
    count: u64,
    first: Timestamp,
    last: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Kind {
    of: Use,
    refused: Option<Refusal>,
}

/// Uses that are yet to be written down.
#[derive(Default)]
pub(super) struct Pending {
    counts: Mutex<HashMap<Kind, Count>>,
    /// The last attempt to write them down failed.
    is_stuck: AtomicBool,
    /// One writes at a time, so that nobody takes for written what another has not written yet.
    turn: Mutex<()>,
}

impl Pending {
    /// Counts one use; says whether it is time to write.
    fn count(&self, kind: Kind, times: Count) -> bool {
        let mut counts = self.counts.lock();
        counts
            .entry(kind)
            .and_modify(|known| {
                known.count = known.count.saturating_add(times.count);
                known.first = known.first.min(times.first);
                known.last = known.last.max(times.last);
            })
            .or_insert(times);
        counts.len() >= MAX_KINDS
    }
}

impl KeyService {
    /// Runs an operation with a data key, and counts it. `operation` fills in what it finds out of the key.
    pub(super) fn with_data_key<T>(
        &self,
        mut of: Use,
        operation: impl FnOnce(&mut Use) -> Result<T, KmsError>,
    ) -> Result<T, KmsError> {
        if self.pending.is_stuck.load(Ordering::Acquire) {
            self.flush_usage()?;
        }
        let result = operation(&mut of);
        let now = self.clock.now();
        let kind = Kind {
            of,
            refused: result.as_ref().err().map(Refusal::from),
        };
        let once = Count {
            count: 1,
            first: now,
            last: now,
        };
        if self.pending.count(kind, once) {
            self.flush_usage()?;
        }
        result
    }

    /// Writes down what was done with data keys since the last time. Costs nothing where that was nothing. A mount calls
    /// it at least once a second, and the last one when it ends.
    ///
    /// # Errors
    /// [`KmsError::NotRecorded`]: nothing is lost, but no data key is given out until it works.
    pub fn flush_usage(&self) -> Result<(), KmsError> {
        let _turn = self.pending.turn.lock();
        let counts = std::mem::take(&mut *self.pending.counts.lock());
        if counts.is_empty() {
            self.pending.is_stuck.store(false, Ordering::Release);
            return Ok(());
        }
        let written = self.write_down(&counts);
        if written.is_err() {
            for (kind, times) in counts {
                self.pending.count(kind, times);
            }
        }
        self.pending
            .is_stuck
            .store(written.is_err(), Ordering::Release);
        written
    }

    fn write_down(&self, counts: &HashMap<Kind, Count>) -> Result<(), KmsError> {
        let mut kinds: Vec<(&Kind, &Count)> = counts.iter().collect();
        kinds.sort_by_key(|(_, times)| times.first);
        let events: Vec<Event> = kinds
            .into_iter()
            .map(|(kind, times)| event(kind, times))
            .collect();
        let not_recorded = |error: KmsError| match error {
            error @ KmsError::NotRecorded(_) => error,
            error => KmsError::NotRecorded(error.into()),
        };
        let _lock = transaction::take_turn(&self.store).map_err(not_recorded)?;
        transaction::record(&self.store, &self.recorder, &events)
    }
}

fn event(Kind { of, refused }: &Kind, times: &Count) -> Event {
    let context = serde_json::json!({ "volume": of.volume.to_string() });
    let event = Event::of_data(of.operation);
    let mut event = match of.source {
        None => event
            .asked(&of.asked)
            .with("encryptionContext", context),
        Some((key, material)) => {
            let mut event = event
                .with("destinationKeyId", of.asked.name())
                .with("sourceEncryptionContext", context.clone())
                .with("destinationEncryptionContext", context);
            event.source(key, material);
            event
        }
    };
    event.refused.clone_from(refused);
    if let Some(key) = of.key {
        event.about(key);
    }
    if let Some(material) = of.material {
        event.material(material);
    }
    event.note("count", times.count);
    event.note("firstEventTime", rfc3339_text(times.first));
    event.note("lastEventTime", rfc3339_text(times.last));
    event
}

impl Drop for KeyService {
    fn drop(&mut self) {
        let result = self.flush_usage().or_else(|error| {
            if !error.is_full() {
                return Err(error);
            }
            // Nobody comes after this to write it down.
            let lock = transaction::take_turn(&self.store)?;
            reserve::release(self.store.dir())?;
            drop(lock);
            self.flush_usage()
        });
        if let Err(error) = result {
            log::error!("what was done with data keys is not in the audit log: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use serde_json::Value;

    use super::*;
    use crate::kms::error::KeyUnavailable;
    use crate::kms::key::CreateKeyRequest;
    use crate::kms::service::tests::{context, fresh};
    use crate::kms::storage::fault::{Fault, inject};

    fn data_events(dir: &Path) -> Vec<Value> {
        let log = fs::read_to_string(dir.join("audit/log")).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str(line).unwrap());
        lines
            .filter(|line: &Value| line["eventCategory"] == "Data")
            .collect()
    }

    #[test]
    fn uses_of_data_keys_are_counted_and_written_down_together() {
        let (dir, service) = fresh();
        let request = CreateKeyRequest::default();
        let id = service.create_key(request).unwrap().key_id;
        let (here, there) = (context(), context());
        let (_, envelope) = service.generate_data_key(&id.into(), &here).unwrap();
        for _ in 0..1000 {
            service.decrypt_data_key(&envelope, &here).unwrap();
        }
        for _ in 0..7 {
            service.decrypt_data_key(&envelope, &there).unwrap_err();
        }
        assert!(data_events(dir.path()).is_empty());
        service.flush_usage().unwrap();
        let found = data_events(dir.path());
        let told: Vec<(&str, u64, Option<&str>)> = found
            .iter()
            .map(|line| {
                (
                    line["eventName"].as_str().unwrap(),
                    line["additionalEventData"]["count"].as_u64().unwrap(),
                    line["errorCode"].as_str(),
                )
            })
            .collect();
        assert_eq!(told.len(), 3);
        for expected in [
            ("GenerateDataKey", 1, None),
            ("Decrypt", 1000, None),
            ("Decrypt", 7, Some("InvalidCiphertextException")),
        ] {
            assert!(told.contains(&expected), "{told:?}");
        }
        let decrypted = found
            .iter()
            .find(|line| line["additionalEventData"]["count"] == 1000)
            .unwrap();
        assert_eq!(
            decrypted["requestParameters"]["encryptionContext"]["volume"],
            here.volume.to_string()
        );
        assert_eq!(
            decrypted["additionalEventData"]["keyMaterialId"],
            envelope.material_id().to_string()
        );
        // Nothing new, nothing written.
        let before = fs::read(dir.path().join("audit/log")).unwrap();
        service.flush_usage().unwrap();
        assert_eq!(fs::read(dir.path().join("audit/log")).unwrap(), before);
        assert!(service.verify_audit().damage.is_none());
    }

    #[test]
    fn what_was_counted_is_written_down_when_the_service_goes() {
        let (dir, service) = fresh();
        let default = "alias/cmkfs/default".parse().unwrap();
        service.generate_data_key(&default, &context()).unwrap();
        drop(service);
        assert_eq!(data_events(dir.path()).len(), 1);
    }

    #[test]
    fn a_refused_use_is_counted_with_its_reason() {
        let (dir, service) = fresh();
        let request = CreateKeyRequest::default();
        let id = service.create_key(request).unwrap().key_id;
        let context = context();
        let (_, envelope) = service.generate_data_key(&id.into(), &context).unwrap();
        service.flush_usage().unwrap();
        service.disable_key(&id.into()).unwrap();
        for _ in 0..3 {
            service.decrypt_data_key(&envelope, &context).unwrap_err();
        }
        service.flush_usage().unwrap();
        let found = data_events(dir.path());
        let refused = found.last().unwrap();
        assert_eq!(refused["errorCode"], "DisabledException");
        assert_eq!(refused["additionalEventData"]["count"], 3);
    }

    #[test]
    fn what_cannot_be_written_down_is_kept_and_no_further_data_key_is_given_out_until_it_can() {
        let (dir, service) = fresh();
        let default = "alias/cmkfs/default".parse().unwrap();
        let context = context();
        let (_, envelope) = service.generate_data_key(&default, &context).unwrap();
        let (failed, _) = inject(0, Fault::Once(libc::ENOSPC), || service.flush_usage());
        assert!(matches!(failed, Err(KmsError::NotRecorded(_))));
        assert!(data_events(dir.path()).is_empty());
        let (refused, _) = inject(0, Fault::Once(libc::ENOSPC), || {
            service.decrypt_data_key(&envelope, &context)
        });
        assert_eq!(refused.unwrap_err().availability(), KeyUnavailable::Other);
        // The key itself may be used: what is unwrapped already goes on.
        service.key_status(envelope.key_id()).unwrap();
        service.decrypt_data_key(&envelope, &context).unwrap();
        service.flush_usage().unwrap();
        let counts: Vec<u64> = data_events(dir.path())
            .iter()
            .map(|line| line["additionalEventData"]["count"].as_u64().unwrap())
            .collect();
        assert_eq!(counts, [1, 1]);
    }

    #[test]
    fn any_number_of_different_uses_takes_bounded_memory() {
        let (dir, service) = fresh();
        let context = context();
        for _ in 0..MAX_KINDS + 10 {
            let nobody = KeyId::random().into();
            service.generate_data_key(&nobody, &context).unwrap_err();
        }
        assert_eq!(service.pending.counts.lock().len(), 10);
        assert_eq!(data_events(dir.path()).len(), MAX_KINDS);
    }
}
