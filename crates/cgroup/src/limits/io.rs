//! Reading and writing of the pool's disk: bytes and operations per second.
//!
//! Each limit is a rate that the kernel holds a VE to by letting its requests wait. cgroup2 counts what is
//! written later from the page cache, too, on file systems that tell whose it is (btrfs does); v1 counts only
//! what a process writes directly or waits for (cgroup-v1/blkio-controller.rst, "Throttling").

use std::path::Path;

use super::{Refusal, unlimited_or_unsupported};
use crate::group::VeGroup;
use crate::layout::{Controller, Home};
use crate::node::NodeGroup;

/// Rates at the disk of [`NodeGroup::count_io_of`], each per second; `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IoLimits {
    /// Bytes read.
    pub read_bytes: Option<u64>,
    /// Bytes written.
    pub write_bytes: Option<u64>,
    /// Operations of reading.
    pub read_operations: Option<u32>,
    /// Operations of writing.
    pub write_operations: Option<u32>,
}

/// Which input and output this host can limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoControl {
    /// All.
    All,
    /// All but what is written later from the page cache.
    NoWriteBack,
    /// None: the controller or its part that holds rates (`CONFIG_BLK_DEV_THROTTLING`) is missing.
    Missing,
}

impl IoLimits {
    fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// What each file of v1 gets; 0 takes a limit away.
    fn v1(&self) -> [(&'static str, u64); 4] {
        let operations = |rate: Option<u32>| u64::from(rate.unwrap_or(0));
        [
            (V1_READ_BYTES, self.read_bytes.unwrap_or(0)),
            (
                "blkio.throttle.write_bps_device",
                self.write_bytes.unwrap_or(0),
            ),
            (
                "blkio.throttle.read_iops_device",
                operations(self.read_operations),
            ),
            (
                "blkio.throttle.write_iops_device",
                operations(self.write_operations),
            ),
        ]
    }

    /// The line for `io.max`, without the device.
    fn v2(&self) -> String {
        fn or_max(rate: Option<u64>) -> String {
            rate.map_or_else(|| "max".to_owned(), |rate| rate.to_string())
        }
        format!(
            "rbps={} wbps={} riops={} wiops={}",
            or_max(self.read_bytes),
            or_max(self.write_bytes),
            or_max(self.read_operations.map(u64::from)),
            or_max(self.write_operations.map(u64::from)),
        )
    }
}

const V1_READ_BYTES: &str = "blkio.throttle.read_bps_device";
const V2_RATES: &str = "io.max";

const V1_WEIGHT: &str = "blkio.bfq.weight";
const V2_WEIGHT: &str = "io.bfq.weight";
/// Weight of a group that has none of its own.
const WEIGHT_DEFAULT: u32 = 100;

fn weight_file(home: Home) -> &'static str {
    match home {
        Home::V1(_) => V1_WEIGHT,
        Home::V2 => V2_WEIGHT,
    }
}

impl VeGroup {
    /// Weight at the disk, which the scheduler BFQ goes by: 1 to 1,000 (`BFQ_MAX_WEIGHT`,
    /// block/bfq-iosched.h).
    pub(super) fn apply_io_weight(&self, weight: Option<u32>) -> Result<(), Refusal> {
        let Some((directory, home)) = self.inner.directory(Controller::Io) else {
            return unlimited_or_unsupported(weight.is_none(), Controller::Io);
        };
        let file = self.file(weight_file(home));
        if weight.is_none() && !directory.has(&file) {
            return Ok(());
        }
        let weight = weight.unwrap_or(WEIGHT_DEFAULT);
        Ok(directory.write(&file, &weight.to_string())?)
    }

    pub(super) fn apply_io(&self, limits: &IoLimits) -> Result<(), Refusal> {
        let controlled = self.inner.directory(Controller::Io);
        let (Some((directory, home)), Some(device)) = (controlled, self.inner.io_device.get())
        else {
            return unlimited_or_unsupported(limits.is_none(), Controller::Io);
        };
        let probe = if home == Home::V2 {
            V2_RATES
        } else {
            V1_READ_BYTES
        };
        if !directory.has(&self.file(probe)) {
            return unlimited_or_unsupported(limits.is_none(), Controller::Io);
        }
        if home == Home::V2 {
            let line = format!("{device} {}", limits.v2());
            return Ok(directory.write(&self.file(V2_RATES), &line)?);
        }
        for (name, rate) in limits.v1() {
            directory.write(&self.file(name), &format!("{device} {rate}"))?;
        }
        Ok(())
    }
}

impl NodeGroup {
    /// Why VEs cannot be weighed against each other at the pool's disk, if they cannot.
    #[must_use]
    pub fn io_weights_missing(&self) -> Option<&'static str> {
        let Some((directory, home)) = self.inner().directory(Controller::Io) else {
            return Some("the controller of input and output is not there");
        };
        let below = Path::new(weight_file(home));
        (!directory.has(below)).then_some(
            "the scheduler BFQ is not there (`modprobe bfq`, or a kernel with `CONFIG_IOSCHED_BFQ` and \
             `CONFIG_BFQ_GROUP_IOSCHED`)",
        )
    }

    /// Whether what VEs write later from the page cache is weighed, too: cgroup v1 knows not whose it is.
    #[must_use]
    pub fn io_weighs_all(&self) -> bool {
        let io = self.inner().directory(Controller::Io);
        io.is_some_and(|(_, home)| home == Home::V2)
    }

    /// The device that [`NodeGroup::count_io_of`] named, as `7:0`.
    #[must_use]
    pub fn io_device(&self) -> Option<&str> {
        self.inner().io_device.get().map(String::as_str)
    }

    /// Which input and output of VEs this host can limit.
    #[must_use]
    pub fn io_control(&self) -> IoControl {
        let Some((directory, home)) = self.inner().directory(Controller::Io) else {
            return IoControl::Missing;
        };
        let (rates, control) = match home {
            Home::V1(_) => (V1_READ_BYTES, IoControl::NoWriteBack),
            Home::V2 => (V2_RATES, IoControl::All),
        };
        if directory.has(Path::new(rates)) {
            control
        } else {
            IoControl::Missing
        }
    }
}
