//! An object's data key while it is in use: unwrapped on first need, held through the lease of its CMK, wiped when that
//! is revoked, unwrapped again when it is restored.

use std::ops::Deref;
use std::sync::{Arc, Weak};

use crate::sync::{MappedRwLockReadGuard, RwLock, RwLockReadGuard};

use super::error::{Damage, FsResult};
use super::keys::{KeyPort, KeyUnavailable};
use super::lease::{Lease, LeaseGuard, Leases, Revocable};
use crate::crypto::envelope::DataKey;
use crate::crypto::header::{self, HeaderError};
use crate::crypto::object::ObjectKeys;
use crate::format::envelope::{EncryptionContext, Envelope, ObjectKind};
use crate::format::header::{HEADER_LEN, Header, KeyBinding, SealedState};
use crate::ids::{KeyId, ObjectId, VolumeId};

/// What it takes to get at data keys: the port, and the leases they are held through.
pub struct KeyRing {
    /// The volume.
    pub volume: VolumeId,
    /// The key service.
    pub port: Arc<dyn KeyPort>,
    /// The leases of the CMKs in use.
    pub leases: Leases,
}

impl std::fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyRing")
            .field("volume", &self.volume)
            .finish_non_exhaustive()
    }
}

/// An object that has a data key.
pub struct Object {
    id: ObjectId,
    kind: ObjectKind,
    envelope: Envelope,
    lease: Arc<Lease>,
    keys: RwLock<Option<ObjectKeys>>,
    myself: Weak<Self>,
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Object")
            .field("id", &self.id)
            .field("key", &self.key())
            .finish_non_exhaustive()
    }
}

/// An object's keys in use: while this lives, a revocation waits.
pub struct Keys<'a> {
    // Dropped in this order: the keys before the lease that guards them.
    keys: MappedRwLockReadGuard<'a, ObjectKeys>,
    _lease: LeaseGuard<'a>,
}

impl Deref for Keys<'_> {
    type Target = ObjectKeys;

    fn deref(&self) -> &ObjectKeys {
        &self.keys
    }
}

impl Revocable for Object {
    fn wipe_keys(&self) {
        *self.keys.write() = None;
    }
}

impl Object {
    /// A new object with a fresh data key, wrapped under the CMK that `binding` names.
    pub fn create(ring: &KeyRing, kind: ObjectKind, binding: &KeyBinding) -> FsResult<Arc<Self>> {
        let id = ObjectId::random();
        let context = EncryptionContext {
            volume: ring.volume,
            object: id,
            kind,
        };
        let (data_key, envelope) = ring.port.generate_data_key(binding, &context)?;
        let object = Self::new(ring, id, kind, envelope);
        let lease = object.lease.enter()?;
        object.install(&data_key);
        drop(lease);
        Ok(object)
    }

    /// An object that exists; its data key is unwrapped when it is first needed.
    pub fn existing(
        ring: &KeyRing,
        id: ObjectId,
        kind: ObjectKind,
        envelope: Envelope,
    ) -> Arc<Self> {
        Self::new(ring, id, kind, envelope)
    }

    fn new(ring: &KeyRing, id: ObjectId, kind: ObjectKind, envelope: Envelope) -> Arc<Self> {
        let lease = ring.leases.of(envelope.key_id());
        let keys = RwLock::new(None);
        Arc::new_cyclic(|myself| Self {
            id,
            kind,
            envelope,
            lease,
            keys,
            myself: myself.clone(),
        })
    }

    /// The same object with its data key wrapped anew, under the current material of the CMK that `binding` names now;
    /// `None` where that wraps it already. Whoever holds the old one can go on with it; what is to be stored is the new
    /// one's. The new envelope has been opened once before it is handed out.
    pub fn rewrapped(&self, ring: &KeyRing, binding: &KeyBinding) -> FsResult<Option<Arc<Self>>> {
        // A revocation of the old CMK waits, or comes first and is obeyed.
        let _lease = self.lease.enter()?;
        let envelope =
            ring.port
                .rewrap_data_key(binding, &self.envelope, &self.context(ring.volume))?;
        let Some(envelope) = envelope else {
            return Ok(None);
        };
        let object = Self::new(ring, self.id, self.kind, envelope);
        object.keys(ring)?;
        Ok(Some(object))
    }

    const fn context(&self, volume: VolumeId) -> EncryptionContext {
        EncryptionContext {
            volume,
            object: self.id,
            kind: self.kind,
        }
    }

    /// The object's id.
    pub const fn id(&self) -> ObjectId {
        self.id
    }

    /// The wrapped data key.
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The CMK that wraps the data key.
    pub fn key(&self) -> KeyId {
        self.lease.key()
    }

    /// The object's keys, for as long as the result lives.
    pub fn keys(&self, ring: &KeyRing) -> Result<Keys<'_>, KeyUnavailable> {
        let lease = self.lease.enter()?;
        loop {
            // Recursive for the same reason as the lease: one operation may ask twice.
            if let Ok(keys) = RwLockReadGuard::try_map(self.keys.read_recursive(), Option::as_ref) {
                return Ok(Keys {
                    keys,
                    _lease: lease,
                });
            }
            let context = self.context(ring.volume);
            self.install(&ring.port.unwrap_data_key(&self.envelope, &context)?);
        }
    }

    /// Runs `work` with the object's keys if they are in memory. Only for whoever has closed the lease, and wipes the keys
    /// next.
    pub(super) fn with_closed_keys<T>(&self, work: impl FnOnce(&ObjectKeys) -> T) -> Option<T> {
        self.keys.read().as_ref().map(work)
    }

    /// Stores the keys. The caller is inside the lease, so no revocation comes between this and the use of the keys.
    fn install(&self, data_key: &DataKey) {
        let mut keys = self.keys.write();
        if keys.is_none() {
            *keys = Some(ObjectKeys::new(data_key, self.kind));
            let myself: Weak<dyn Revocable> = self.myself.clone();
            self.lease.hold(myself);
        }
    }

    /// Seals a state into the bytes of this object's header.
    pub fn seal_header(
        &self,
        keys: &ObjectKeys,
        state: &SealedState,
    ) -> FsResult<[u8; HEADER_LEN]> {
        Ok(header::seal(keys, self.kind, self.id, self.envelope, state)?.encode())
    }

    /// The sealed state in the bytes of this object's own header, and of no other.
    pub fn reopen_header(&self, ring: &KeyRing, bytes: &[u8]) -> FsResult<SealedState> {
        let header = Header::decode(self.kind, bytes)?;
        if header.object_id() != self.id || *header.envelope() != self.envelope {
            return Err(Damage::Authentication {
                what: "the object header",
            }
            .into());
        }
        open_state(&*self.keys(ring)?, &header)
    }

    /// The object behind the bytes of its header, and its sealed state.
    pub fn open_header(
        ring: &KeyRing,
        kind: ObjectKind,
        bytes: &[u8],
    ) -> FsResult<(Arc<Self>, SealedState)> {
        let header = Header::decode(kind, bytes)?;
        let object = Self::existing(ring, header.object_id(), kind, *header.envelope());
        let state = open_state(&*object.keys(ring)?, &header)?;
        Ok((object, state))
    }
}

fn open_state(keys: &ObjectKeys, header: &Header) -> FsResult<SealedState> {
    let opened = header::open(keys, header).map_err(|error| match error {
        HeaderError::Authentication(_) => Damage::Authentication {
            what: "the object header",
        },
        HeaderError::Format(error) => Damage::Format(error),
    });
    Ok(opened?)
}
