//! How nouns of `ve`, which are not serializable on purpose, look on the launcher's socket.

use serde::{Deserialize, Serialize};

/// A VE's number as a JSON number.
pub(crate) mod ve_number {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use ve::VeId;

    pub(crate) fn serialize<S: Serializer>(id: &VeId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(id.get())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<VeId, D::Error> {
        VeId::new(u32::deserialize(d)?).map_err(D::Error::custom)
    }
}

/// [`ve::Exit`] as serde sees it.
#[derive(Serialize, Deserialize)]
#[serde(remote = "ve::Exit")]
pub(crate) enum ExitRecord {
    Code(i32),
    Signal(i32),
    Reboot,
    PowerOff,
    Unknown,
}
