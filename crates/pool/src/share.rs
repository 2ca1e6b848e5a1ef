//! Space that is guaranteed: nobody but its VE takes it, held by the kernel.
//!
//! ```text
//! 1/101  the area of VE 101: its limit          1/102   1/103
//!   |                                              \     /
//! 2/101  a VE with a guarantee: its share       2/1048576  all VEs without: what is left
//! ```
//!
//! Shares are bounds of groups above the areas' own, so that they and limits do not know of each other.
//! They never sum up to more than the pool has: then nobody can take what another is guaranteed, whether
//! somebody watches or not. What is free beyond guarantees is dealt out in shares, anew every now and then
//! ([`Pool::space_divide`]); between two deals a VE ends at its share (`EDQUOT`) even if others have
//! some to spare. What the administrator himself puts into the pool, as templates, is not held.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use kernel::btrfs::{self, QgroupId};
use ve::VeId;

use crate::private::group;
use crate::{Pool, Quota};

/// Level of the groups above the areas'.
const SHARE_LEVEL: u16 = 2;
/// The number of the group of all VEs without a guarantee: no VE has it.
const COMMON_NUMBER: u32 = 1 << 20;

/// How much VEs may take at most until the next deal, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// VEs with a guarantee, each.
    pub own: BTreeMap<VeId, u64>,
    /// All others, together.
    pub common: u64,
}

fn own(id: VeId) -> QgroupId {
    QgroupId::above(SHARE_LEVEL, id.get())
}

fn common() -> QgroupId {
    QgroupId::above(SHARE_LEVEL, COMMON_NUMBER)
}

fn ve(group: QgroupId) -> Option<VeId> {
    VeId::new(u32::try_from(group.number()).ok()?).ok()
}

/// Lets an error of this kind pass.
fn unless(kind: io::ErrorKind, result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == kind => Ok(()),
        other => other,
    }
}

impl Pool {
    /// Why space in this pool cannot be guaranteed, if it cannot.
    #[must_use]
    pub fn space_undivisible(&self) -> Option<&'static str> {
        match self.quota() {
            Quota::Simple if self.is_exclusive() => None,
            Quota::Simple => {
                Some("the pool is a folder of a btrfs in which others take what they like")
            }
            _ => Some("nothing is counted in this pool: its btrfs has no simple quotas"),
        }
    }

    /// Deals out the pool: bounds every VE that has an area, those with a share by it, and all others
    /// together. Takes effect at once. Who has more already keeps it and can write no more.
    ///
    /// # Errors
    /// Those of the requests. What was done stays; it can be repeated.
    pub fn space_divide(&self, shares: &Shares) -> io::Result<()> {
        // First who gets less, so that never more is dealt out than there is.
        let mut bounds: Vec<_> = shares
            .own
            .iter()
            .map(|(id, most)| (own(*id), *most))
            .collect();
        bounds.push((common(), shares.common));
        let mut raised = Vec::new();
        for (group, most) in bounds {
            let made = btrfs::qgroup_create(self.root(), group);
            unless(io::ErrorKind::AlreadyExists, made)?;
            match btrfs::qgroup_limit(self.root(), group)? {
                Some(old) if old < most => raised.push((group, most)),
                Some(old) if old == most => {}
                _ => btrfs::qgroup_limit_set(self.root(), group, Some(most))?,
            }
        }
        self.join_shares(shares)?;
        raised
            .into_iter()
            .try_for_each(|(group, most)| btrfs::qgroup_limit_set(self.root(), group, Some(most)))
    }

    /// Bounds nobody by shares any more. Running it again changes nothing.
    ///
    /// # Errors
    /// Those of the requests.
    pub fn space_undivide(&self) -> io::Result<()> {
        for (group, _) in btrfs::qgroups(self.root(), SHARE_LEVEL)? {
            self.dissolve(group)?;
        }
        Ok(())
    }

    /// Puts every area into the group that it is to be in, and takes groups away that nobody is to be in.
    fn join_shares(&self, shares: &Shares) -> io::Result<()> {
        let areas: BTreeSet<VeId> = self.private_list()?.into_iter().collect();
        for (group, _) in btrfs::qgroups(self.root(), SHARE_LEVEL)? {
            let wanted = |id: &VeId| match shares.own.contains_key(id) {
                true => group == own(*id),
                false => group == common(),
            };
            let is_wanted = group == common() || ve(group).is_some_and(|id| wanted(&id));
            if !is_wanted {
                self.dissolve(group)?;
                continue;
            }
            let members: BTreeSet<VeId> = btrfs::qgroup_members(self.root(), group)?
                .into_iter()
                .filter_map(ve)
                .collect();
            for id in members.iter().filter(|id| !wanted(id)) {
                self.leave(*id, group)?;
            }
            for id in areas
                .iter()
                .filter(|id| wanted(id) && !members.contains(id))
            {
                let joined = btrfs::qgroup_assign(self.root(), crate::private::group(*id), group);
                unless(io::ErrorKind::AlreadyExists, joined)?;
            }
        }
        Ok(())
    }

    fn leave(&self, id: VeId, share: QgroupId) -> io::Result<()> {
        let left = btrfs::qgroup_unassign(self.root(), group(id), share);
        unless(io::ErrorKind::NotFound, left)
    }

    /// Takes a group away. One that the kernel keeps, as something that was deleted is charged to it still,
    /// bounds nobody.
    fn dissolve(&self, share: QgroupId) -> io::Result<()> {
        for member in btrfs::qgroup_members(self.root(), share)? {
            let left = btrfs::qgroup_unassign(self.root(), member, share);
            unless(io::ErrorKind::NotFound, left)?;
        }
        btrfs::qgroup_limit_set(self.root(), share, None)?;
        let destroyed = btrfs::qgroup_destroy(self.root(), share);
        unless(io::ErrorKind::ResourceBusy, destroyed)
    }
}
