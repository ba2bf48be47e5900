//! Identifiers: newtypes over fixed-size byte strings, so that one kind is never taken for another.
//!
//! Owns their text forms. Knows nothing of what they name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Text that is not the identifier it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {kind}: {text:?}")]
pub struct ParseIdError {
    kind: &'static str,
    text: String,
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// A new random (version 4) identifier.
            #[must_use]
            pub fn random() -> Self {
                Self(*uuid::Uuid::new_v4().as_bytes())
            }

            /// The sixteen bytes, as they are stored.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                uuid::Uuid::from_bytes(self.0).as_hyphenated().fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            /// Accepts the lower-case hyphenated form only: one identifier has one spelling.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let error = || ParseIdError { kind: $kind, text: text.to_owned() };
                let uuid = uuid::Uuid::try_parse(text).map_err(|_| error())?;
                if uuid.as_hyphenated().to_string() != text {
                    return Err(error());
                }
                Ok(Self(*uuid.as_bytes()))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

uuid_id!(
    /// Names a CMK for its whole life, whatever its materials and aliases.
    KeyId,
    "key id"
);
uuid_id!(
    /// Names a key directory. A volume remembers the one it was made with.
    KeyStoreId,
    "key store id"
);
uuid_id!(
    /// Names a backup of a key directory.
    BackupId,
    "backup id"
);
uuid_id!(
    /// Names a volume.
    VolumeId,
    "volume id"
);
uuid_id!(
    /// Names a file, directory or symlink inside its volume: the holder of a data key.
    ObjectId,
    "object id"
);

/// SHA-256 over a label, the key id and the key material: tells one material of a CMK from another
/// without saying anything of its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MaterialId(pub [u8; 32]);

impl MaterialId {
    /// The thirty-two bytes, as they are stored.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for MaterialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for MaterialId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MaterialId({self})")
    }
}

impl FromStr for MaterialId {
    type Err = ParseIdError;

    /// Accepts exactly 64 lower-case hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut id = [0; 32];
        let is_lower_case = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        if !is_lower_case || hex::decode_to_slice(text, &mut id).is_err() {
            return Err(ParseIdError {
                kind: "key material id",
                text: text.to_owned(),
            });
        }
        Ok(Self(id))
    }
}

impl Serialize for MaterialId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MaterialId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips_and_has_one_spelling() {
        let id = KeyId::random();
        assert_eq!(id.to_string().parse::<KeyId>().unwrap(), id);
        assert!(id.to_string().to_uppercase().parse::<KeyId>().is_err());
        assert!(id.to_string().replace('-', "").parse::<KeyId>().is_err());
        let material = MaterialId([0xa5; 32]);
        assert_eq!(
            material.to_string().parse::<MaterialId>().unwrap(),
            material
        );
        assert!("A5".repeat(32).parse::<MaterialId>().is_err());
    }
}
