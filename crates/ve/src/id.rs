//! Numeric identity of a VE, and what follows from it on every node.
//!
//! A VE's number decides its range of user ids, the name of its network interface and the names of
//! its control groups, so two nodes on one machine take their numbers from disjoint ranges.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// Number of user and group ids that each VE owns. Distributions expect 0 to 65,535
/// (`nobody` is 65,534), so a smaller range breaks packages.
pub const UIDS_PER_VE: u32 = 65_536;

/// The numeric identity of a VE: 100 to 65,534.
///
/// Numbers below 100 are left free, as users of other systems expect; the upper bound keeps
/// every range of user ids below 2^32 - 65,536, so that `(uid_t) -1` is in none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VeId(NonZeroU32);

/// First host user id of a VE's own range, [`UIDS_PER_VE`] wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UidBase(u32);

/// A number that cannot be a VE's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{given}` is not the number of a VE: it must be {} to {}",
    VeId::MIN,
    VeId::MAX
)]
pub struct InvalidVeId {
    given: String,
}

impl VeId {
    /// Smallest number of a VE.
    pub const MIN: u32 = 100;
    /// Largest number of a VE.
    pub const MAX: u32 = 65_534;

    /// Makes an identity from its number.
    ///
    /// # Errors
    /// Refuses numbers outside [`VeId::MIN`] to [`VeId::MAX`].
    pub fn new(number: u32) -> Result<Self, InvalidVeId> {
        match NonZeroU32::new(number) {
            Some(n) if (Self::MIN..=Self::MAX).contains(&number) => Ok(Self(n)),
            _ => Err(InvalidVeId {
                given: number.to_string(),
            }),
        }
    }

    /// The number itself.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// First host user id of this VE, the same on every node.
    #[must_use]
    pub fn uid_base(self) -> UidBase {
        UidBase(self.get() * UIDS_PER_VE)
    }

    /// Name of the host's end of this VE's link, within the kernel's 15 bytes (`IFNAMSIZ`).
    #[must_use]
    pub fn interface_name(self) -> String {
        format!("ve{}", self.get())
    }
}

impl UidBase {
    /// The host user id that the VE's root has.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for VeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for VeId {
    type Err = InvalidVeId;

    fn from_str(text: &str) -> Result<Self, InvalidVeId> {
        let invalid = || InvalidVeId {
            given: text.to_owned(),
        };
        let number = text.parse::<u32>().map_err(|_| invalid())?;
        Self::new(number).map_err(|_| invalid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_never_overlap_and_never_hold_minus_one() {
        let first = VeId::new(VeId::MIN).unwrap().uid_base().get();
        let second = VeId::new(VeId::MIN + 1).unwrap().uid_base().get();
        assert_eq!(second - first, UIDS_PER_VE);
        let last = VeId::new(VeId::MAX).unwrap().uid_base().get();
        assert!(last.checked_add(UIDS_PER_VE - 1).unwrap() < u32::MAX);
    }

    #[test]
    fn refuses_what_is_no_number_of_a_ve() {
        for text in ["", "0", "99", "65535", "-1", "1e3", "web"] {
            let error = text.parse::<VeId>().unwrap_err();
            assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
        }
    }

    #[test]
    fn interface_names_fit_the_kernel() {
        assert!(VeId::new(VeId::MAX).unwrap().interface_name().len() <= 15);
    }
}
