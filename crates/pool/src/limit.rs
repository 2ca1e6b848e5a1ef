//! What private areas take, and what they may take.

use std::fs;
use std::io;

use kernel::btrfs::{self, QgroupId};
use ve::VeId;

use crate::Pool;
use crate::private::{AREA_LEVEL, PRIVATE_LIMIT_BYTES_MIN, PrivateError, group};

impl Pool {
    /// Limits what a VE's private area and its snapshots may take, at once, or lifts the limit.
    ///
    /// # Errors
    /// [`PrivateError::LimitBelowUse`] (and nothing changes), [`PrivateError::LimitTooSmall`],
    /// [`PrivateError::NoQuota`], [`PrivateError::NotFound`].
    pub fn private_limit_set(
        &self,
        id: VeId,
        limit_bytes: Option<u64>,
    ) -> Result<(), PrivateError> {
        self.require_quota(id)?;
        if let Some(limit_bytes) = limit_bytes {
            if limit_bytes < PRIVATE_LIMIT_BYTES_MIN {
                return Err(PrivateError::LimitTooSmall { id, limit_bytes });
            }
            let used_bytes = self.private_usage(id)?;
            if used_bytes > limit_bytes {
                return Err(PrivateError::LimitBelowUse {
                    id,
                    limit_bytes,
                    used_bytes,
                });
            }
        }
        btrfs::qgroup_limit_set(self.root(), group(id), limit_bytes).map_err(|error| {
            match error.kind() {
                io::ErrorKind::NotFound => self.not_found(id),
                _ => self.failed(id, "limit the private area")(error),
            }
        })
    }

    /// The limit of a private area in bytes, if it has one.
    ///
    /// # Errors
    /// [`PrivateError::Io`].
    pub fn private_limit(&self, id: VeId) -> Result<Option<u64>, PrivateError> {
        btrfs::qgroup_limit(self.root(), group(id))
            .map_err(self.failed(id, "read the limit of the private area"))
    }

    /// Bytes that a VE's private area and its snapshots take now, those still on the way to the disk included.
    ///
    /// # Errors
    /// [`PrivateError::NotFound`], [`PrivateError::NoQuota`].
    pub fn private_usage(&self, id: VeId) -> Result<u64, PrivateError> {
        self.require_quota(id)?;
        if let Some(bytes) = self.live_usage(id) {
            return Ok(bytes);
        }
        let info = btrfs::qgroup_info(self.root(), group(id))
            .map_err(self.failed(id, "read the use of the private area"))?;
        info.map(|info| info.referenced_bytes)
            .ok_or_else(|| self.not_found(id))
    }

    /// What the kernel has counted in memory: the quota tree is up to 30 s older. Nothing where
    /// sysfs is not mounted or there is no such group.
    fn live_usage(&self, id: VeId) -> Option<u64> {
        let uuid = btrfs::file_system_info(self.root()).ok()?.uuid;
        let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
        let part = |from, to| hex.get(from..to).unwrap_or_default();
        let uuid = [
            part(0, 8),
            part(8, 12),
            part(12, 16),
            part(16, 20),
            part(20, 32),
        ]
        .join("-");
        let directory = format!("/sys/fs/btrfs/{uuid}/qgroups/{AREA_LEVEL}_{id}");
        let read = |name| -> Option<u64> {
            fs::read_to_string(format!("{directory}/{name}"))
                .ok()?
                .trim()
                .parse()
                .ok()
        };
        Some(read("referenced")?.saturating_add(read("rsv_data")?))
    }

    /// Bytes that every VE's private area takes, as of the last commit (at most 30 s ago): one request for
    /// all, to meter by.
    ///
    /// # Errors
    /// Those of reading the quota tree.
    pub fn private_usages(&self) -> io::Result<Vec<(VeId, u64)>> {
        let groups = btrfs::qgroups(self.root(), AREA_LEVEL)?;
        let of_ve = |(group, info): (QgroupId, btrfs::QgroupInfo)| {
            let number = u32::try_from(group.number()).ok()?;
            Some((VeId::new(number).ok()?, info.referenced_bytes))
        };
        Ok(groups.into_iter().filter_map(of_ve).collect())
    }
}
