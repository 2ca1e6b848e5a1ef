//! Removing what no VE owns: areas, half-made and half-removed ones, and quota groups.

use std::os::fd::AsFd;

use kernel::btrfs::{self, QgroupId, SubvolumeId};
use ve::VeId;

use crate::layout::{self, PRIVATE};
use crate::private::{AREA_LEVEL, DEAD, NEW, PrivateError, UPPER};
use crate::{Pool, Quota};

/// Something that no VE owned and that is gone now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swept {
    /// A private area, with its quota group.
    Area(VeId),
    /// What a creation or removal of an area had left.
    Remains(VeId),
    /// The quota group of a VE.
    Group(VeId),
    /// The quota group of a subvolume that was destroyed.
    SubvolumeGroup(u64),
}

/// What a sweep did.
#[derive(Debug, Default)]
pub struct SweepReport {
    /// What is gone.
    pub removed: Vec<Swept>,
    /// What could not be removed, for the next sweep.
    pub failed: Vec<(VeId, PrivateError)>,
    /// VEs that are not to be kept, and whose areas hold files: they stay.
    pub strangers: Vec<VeId>,
}

impl Pool {
    /// Removes the empty private areas and the quota groups of all VEs that are not in `keep`, and what
    /// crashes left. `keep` must name every VE there is, those that are being made included.
    ///
    /// An area that holds files stays, with its group: no crash leaves one behind, so whoever says
    /// `keep` has lost a VE.
    ///
    /// In a directory of a btrfs that others use too, only groups of subvolumes that are gone and
    /// groups of areas found here are removed: the rest may be the others'.
    ///
    /// # Errors
    /// When the areas or groups cannot be listed. What fails for one VE is in the report.
    pub fn private_sweep(&self, keep: &[VeId]) -> std::io::Result<SweepReport> {
        self.sweep(keep, |id| self.holds_files(id))
    }

    /// Removes all private areas with all files in them, and all quota groups.
    ///
    /// # Errors
    /// As of [`Pool::private_sweep`].
    pub fn private_clear(&self) -> std::io::Result<SweepReport> {
        self.sweep(&[], |_| false)
    }

    fn sweep(&self, keep: &[VeId], stays: impl Fn(VeId) -> bool) -> std::io::Result<SweepReport> {
        let mut report = SweepReport::default();
        let areas = layout::open_directory(self.root(), PRIVATE)?;
        for name in layout::names(areas.as_fd())? {
            let Some(name) = name.to_str() else { continue };
            let (prefix, rest) = split(name);
            let Ok(id) = rest.parse::<VeId>() else {
                continue;
            };
            let kept = keep.contains(&id);
            if prefix.is_empty() && !kept && stays(id) {
                report.strangers.push(id);
                continue;
            }
            let (swept, result) = match prefix {
                "" if !kept => (Swept::Area(id), self.private_remove(id)),
                NEW if !kept => (Swept::Remains(id), self.private_remove(id)),
                DEAD => (Swept::Remains(id), self.finish_removal(areas.as_fd(), id)),
                _ => continue,
            };
            match result {
                Ok(()) => report.removed.push(swept),
                Err(error) => report.failed.push((id, error)),
            }
        }
        if *self.quota() == Quota::Simple {
            let keep = [keep, &report.strangers].concat();
            self.sweep_groups(&keep, &mut report)?;
        }
        Ok(report)
    }

    /// Whether a VE changed anything in its area; one that cannot be read counts as changed.
    fn holds_files(&self, id: VeId) -> bool {
        let upper = self.path().join(PRIVATE).join(id.to_string()).join(UPPER);
        match std::fs::read_dir(upper) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        }
    }

    fn sweep_groups(&self, keep: &[VeId], report: &mut SweepReport) -> std::io::Result<()> {
        if self.is_exclusive() {
            for (group, _) in btrfs::qgroups(self.root(), AREA_LEVEL)? {
                let id = u32::try_from(group.number())
                    .ok()
                    .and_then(|n| VeId::new(n).ok());
                let Some(id) = id.filter(|id| !keep.contains(id)) else {
                    continue;
                };
                self.release_group(id, &[])?;
                if btrfs::qgroup_info(self.root(), group)?.is_none() {
                    report.removed.push(Swept::Group(id));
                }
            }
        }
        for (group, _) in btrfs::qgroups(self.root(), 0)? {
            let Some(subvolume) = SubvolumeId::of_qgroup(group) else {
                continue;
            };
            let gone = subvolume.get() >= btrfs::SUBVOLUME_ID_MIN
                && !btrfs::subvolume_exists(self.root(), subvolume)?;
            // Extents that others share keep it busy; then it is no garbage yet.
            if gone && self.destroy_stale(group) {
                report.removed.push(Swept::SubvolumeGroup(subvolume.get()));
            }
        }
        Ok(())
    }

    fn destroy_stale(&self, group: QgroupId) -> bool {
        btrfs::qgroup_destroy(self.root(), group).is_ok()
    }
}

/// Splits the name of an area into the prefix of unfinished work and the rest.
fn split(name: &str) -> (&'static str, &str) {
    for prefix in [NEW, DEAD] {
        if let Some(rest) = name.strip_prefix(prefix) {
            return (prefix, rest);
        }
    }
    ("", name)
}
