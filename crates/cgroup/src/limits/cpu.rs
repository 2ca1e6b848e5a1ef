//! Processor time: quota, burst and weight.

use super::{Refusal, unlimited_or_unsupported};
use crate::error::FileError;
use crate::files::Directory;
use crate::group::VeGroup;
use crate::layout::{Controller, Home};

/// Period of the processor quota: the kernel's default, and what people expect of `0.5` cores.
const CPU_PERIOD_MICROSECONDS: u64 = 100_000;
/// Least quota: the kernel takes no less than 1,000 microseconds per period.
const CPU_MILLICORES_MIN: u32 = 10;
const CPU_WEIGHT_DEFAULT: u32 = 100;

impl VeGroup {
    pub(super) fn apply_cpu_limit(&self, millicores: Option<u32>) -> Result<(), Refusal> {
        if let Some(given) = millicores.filter(|given| *given < CPU_MILLICORES_MIN) {
            let reason = format!(
                "{given} thousandths of a processor are less than {CPU_MILLICORES_MIN}, which the \
                 kernel's scheduler can divide"
            );
            return Err(Refusal::Invalid { reason });
        }
        let Some((directory, home)) = self.inner.directory(Controller::Cpu) else {
            return unlimited_or_unsupported(millicores.is_none(), Controller::Cpu);
        };
        // The kernel refuses a quota below the burst, which follows.
        self.write_cpu_burst(directory, home, 0)?;
        let quota = millicores.map(microseconds);
        if home == Home::V2 {
            let quota = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
            let value = format!("{quota} {CPU_PERIOD_MICROSECONDS}");
            return Ok(directory.write(&self.file("cpu.max"), &value)?);
        }
        let quota = quota.map_or_else(|| "-1".to_owned(), |quota| quota.to_string());
        Ok(directory.write(&self.file("cpu.cfs_quota_us"), &quota)?)
    }

    pub(super) fn apply_cpu_burst(&self, millicores: Option<u32>) -> Result<(), Refusal> {
        match (millicores, self.inner.directory(Controller::Cpu)) {
            (None, _) => Ok(()),
            (Some(given), Some((directory, home))) => {
                self.write_cpu_burst(directory, home, microseconds(given))
            }
            (Some(_), None) => unlimited_or_unsupported(false, Controller::Cpu),
        }
    }

    /// What quota may be saved up (`cpu.max.burst`, cgroup-v2.rst); a kernel without it has nothing to
    /// take away.
    fn write_cpu_burst(
        &self,
        directory: &Directory,
        home: Home,
        microseconds: u64,
    ) -> Result<(), Refusal> {
        let name = if home == Home::V2 {
            "cpu.max.burst"
        } else {
            "cpu.cfs_burst_us"
        };
        let file = self.file(name);
        if microseconds == 0 && !directory.has(&file) {
            return Ok(());
        }
        Ok(directory.write(&file, &microseconds.to_string())?)
    }

    pub(super) fn apply_cpu_weight(&self, weight: Option<u32>) -> Result<(), Refusal> {
        let Some(weight) = weight else {
            return Ok(());
        };
        if !(1..=10_000).contains(&weight) {
            let reason = format!("a share of {weight} is not between 1 and 10000");
            return Err(Refusal::Invalid { reason });
        }
        if self.inner.directory(Controller::Cpu).is_none() {
            return unlimited_or_unsupported(weight == CPU_WEIGHT_DEFAULT, Controller::Cpu);
        }
        Ok(self.set_cpu_weight(weight)?)
    }

    /// Gives the VE a weight of 1 to 10,000 against the others of its node, where there is a controller
    /// for it.
    ///
    /// # Errors
    /// [`FileError::is_missing`] when the VE has no group.
    pub fn set_cpu_weight(&self, weight: u32) -> Result<(), FileError> {
        match self.inner.directory(Controller::Cpu) {
            Some((directory, Home::V1(_))) => {
                directory.write(&self.file("cpu.shares"), &shares(weight).to_string())
            }
            Some((directory, Home::V2)) => {
                directory.write(&self.file("cpu.weight"), &weight.to_string())
            }
            None => Ok(()),
        }
    }
}

/// Processor time of one period.
fn microseconds(millicores: u32) -> u64 {
    u64::from(millicores) * CPU_PERIOD_MICROSECONDS / 1_000
}

/// `cpu.shares` of v1 for a weight of cgroup2: 1,024 is the default of one, 100 that of the other.
pub(crate) fn shares(weight: u32) -> u32 {
    // The kernel takes 2 to 262,144.
    (u64::from(weight) * 1_024 / 100)
        .clamp(2, 262_144)
        .try_into()
        .unwrap_or(262_144)
}
